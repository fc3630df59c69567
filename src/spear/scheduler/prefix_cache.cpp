#include "spear/scheduler/prefix_cache.h"

#include <algorithm>

#include "spear/base/check.h"
#include "spear/base/hash.h"

namespace spear {

PrefixCache::PrefixCache(int32_t pages, int64_t page_size)
    : page_size_(page_size),
      entries_of_(static_cast<size_t>(pages)),
      tokens_(static_cast<size_t>(pages * page_size)) {
  size_t buckets = 16;
  while (buckets < entries_of_.size() * 2) buckets *= 2;
  buckets_.assign(buckets, kNone);
}

uint64_t PrefixCache::hash_of(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t h = xxh3(std::as_bytes(tokens)) ^ (before * 0x9e3779b97f4a7c15ULL);
  h ^= h >> 32;
  return h * 0xd6e8feb86659fd93ULL;
}

std::span<const int32_t> PrefixCache::tokens_of(int32_t page) const {
  return std::span(tokens_).subspan(static_cast<size_t>(page * page_size_),
                                    static_cast<size_t>(page_size_));
}

int32_t PrefixCache::look_up(uint64_t hash, uint64_t before,
                             std::span<const int32_t> tokens) const {
  expects(static_cast<int64_t>(tokens.size()) == page_size_);
  for (int32_t page = buckets_[bucket_of(hash)]; page != kNone;) {
    const Entry& entry = entries_of_[static_cast<size_t>(page)];
    if (entry.hash == hash && entry.before == before && std::ranges::equal(tokens_of(page), tokens))
      return page;
    page = entry.next;
  }
  return kNone;
}

PrefixCache::Found PrefixCache::find(uint64_t before, std::span<const int32_t> tokens) const {
  const int32_t page = look_up(hash_of(before, tokens), before, tokens);
  if (page == kNone) return {};
  return {entries_of_[static_cast<size_t>(page)].node, page};
}

uint64_t PrefixCache::insert(uint64_t before, std::span<const int32_t> tokens, int32_t page) {
  const uint64_t hash = hash_of(before, tokens);
  if (const int32_t known = look_up(hash, before, tokens); known != kNone)
    return entries_of_[static_cast<size_t>(known)].node;
  Entry& entry = entries_of_[static_cast<size_t>(page)];
  expects(entry.node == 0);  // a page holds one prefix
  int32_t& first = buckets_[bucket_of(hash)];
  entry = {next_node_++, before, hash, first};
  first = page;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(page * page_size_));
  ++entries_;
  return entry.node;
}

bool PrefixCache::knows(int32_t page) const {
  return entries_of_[static_cast<size_t>(page)].node != 0;
}

void PrefixCache::forget(int32_t page) {
  Entry& entry = entries_of_[static_cast<size_t>(page)];
  expects(entry.node != 0);
  int32_t* link = &buckets_[bucket_of(entry.hash)];
  while (*link != page) {
    expects(*link != kNone);
    link = &entries_of_[static_cast<size_t>(*link)].next;
  }
  *link = entry.next;
  entry = {};
  --entries_;
}

const char* PrefixCache::check() const {
  int32_t reached = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (int32_t page = buckets_[b]; page != kNone;) {
      const Entry& entry = entries_of_[static_cast<size_t>(page)];
      if (++reached > entries_) return "the prefix cache lists a page twice";
      if (entry.node == 0) return "the prefix cache lists a page that it forgot";
      if (bucket_of(entry.hash) != b) return "the prefix cache lists a page in a wrong bucket";
      page = entry.next;
    }
  }
  return reached == entries_ ? nullptr : "the prefix cache has lost a page";
}

}  // namespace spear
