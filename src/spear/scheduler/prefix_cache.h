// Finds pages that hold the keys and values of a prefix already. Every full page is a node: the
// node before it and its own tokens name it, so that equal nodes mean equal prefixes from the first
// token on. Look-ups hash (node before, tokens) and then compare both: a collision costs time,
// never a wrong page. At most one node a page; allocates only when made. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spear {

class PrefixCache {
 public:
  PrefixCache(int32_t pages, int64_t page_size);

  // What stands before the first page; sequences of different salts share nothing.
  static uint64_t root(uint64_t salt) { return (uint64_t{1} << 63) | salt; }

  struct Found {
    uint64_t node = 0;  // 0: nothing
    int32_t page = -1;
  };
  // The page whose tokens are `tokens` [page_size] after `before`.
  [[nodiscard]] Found find(uint64_t before, std::span<const int32_t> tokens) const;

  // Remembers `page`; where the same content is known already that node is returned and `page`
  // stays unknown. Returns the node.
  uint64_t insert(uint64_t before, std::span<const int32_t> tokens, int32_t page);
  // The page is about to hold something else.
  void forget(int32_t page);

  [[nodiscard]] int32_t entries() const { return entries_; }
  [[nodiscard]] bool knows(int32_t page) const;
  [[nodiscard]] const char* check() const;

 private:
  static constexpr int32_t kNone = -1;
  struct Entry {  // of a page
    uint64_t node = 0, before = 0, hash = 0;
    int32_t next = kNone;  // in its bucket
  };

  [[nodiscard]] static uint64_t hash_of(uint64_t before, std::span<const int32_t> tokens);
  [[nodiscard]] size_t bucket_of(uint64_t hash) const { return hash & (buckets_.size() - 1); }
  [[nodiscard]] std::span<const int32_t> tokens_of(int32_t page) const;
  [[nodiscard]] int32_t look_up(uint64_t hash, uint64_t before,
                                std::span<const int32_t> tokens) const;

  int64_t page_size_;
  std::vector<Entry> entries_of_;  // [pages]
  std::vector<int32_t> tokens_;    // [pages, page_size]
  std::vector<int32_t> buckets_;   // first page of each, or kNone
  uint64_t next_node_ = 1;
  int32_t entries_ = 0;
};

}  // namespace spear
