// Results that are costly to compute, kept in pieces so that interrupted work resumes: a folder per
// key with one checksummed file per piece, each written atomically. A piece that is damaged or of
// another size counts as absent. Without a folder the pieces are kept in memory. One thread at a
// time; processes may share a folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/check.h"

namespace spear {

class ShardStore {
 public:
  // `root` empty: in memory. `key` says everything the pieces depend on; its hash names the folder.
  ShardStore(const std::filesystem::path& root, std::string_view key);

  [[nodiscard]] std::optional<std::vector<std::byte>> get(int64_t shard,
                                                          size_t expected_bytes) const;
  void put(int64_t shard, std::vector<std::byte> bytes);
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  [[nodiscard]] std::filesystem::path file_of(int64_t shard) const;
  std::filesystem::path folder_;  // empty: in memory
  std::map<int64_t, std::vector<std::byte>> memory_;
};

// Writes and reads the arrays of a piece one after another.
class PieceWriter {
 public:
  template <class T>
  void add(std::span<const T> values) {
    const auto raw = std::as_bytes(values);
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  }
  std::vector<std::byte> bytes;
};

class PieceReader {
 public:
  explicit PieceReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  void take(std::span<T> to) {
    expects(to.size_bytes() <= bytes_.size());
    if (!to.empty()) std::memcpy(to.data(), bytes_.data(), to.size_bytes());
    bytes_ = bytes_.subspan(to.size_bytes());
  }

 private:
  std::span<const std::byte> bytes_;
};

// Removes the least recently used keys below `root` until the rest takes at most `limit` bytes; 0
// removes all. Returns the bytes that remain. Folders it does not know are left alone.
uint64_t trim_shard_stores(const std::filesystem::path& root, uint64_t limit);

}  // namespace spear
