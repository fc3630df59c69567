// A set of byte strings with a number each, searched by prefix. Immutable once filled: safe from
// every thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "spear/tokenizer/flat_table.h"

namespace spear {

class Trie {
 public:
  static constexpr int32_t kNone = -1;

  Trie() { first_.fill(0); }

  // Empty keys are ignored; a key that is already there keeps its number.
  void insert(std::string_view key, int32_t value) {
    if (key.empty()) return;
    uint32_t node = 0;
    for (const char c : key) node = child_or_new(node, static_cast<uint8_t>(c));
    if (values_[node] == kNone) values_[node] = value;
  }

  // Calls visit(length, value) for every key that `text` starts with, shortest first.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<uint8_t>(text[i]));
      if (node == 0) return;
      if (values_[node] != kNone) visit(i + 1, values_[node]);
    }
  }

  struct Match {
    size_t length = 0;  // 0: no key starts the text
    int32_t value = kNone;
  };
  [[nodiscard]] Match longest(std::string_view text) const {
    Match best;
    for_each_prefix(text, [&](size_t length, int32_t value) { best = {length, value}; });
    return best;
  }

  [[nodiscard]] bool empty() const { return values_.size() == 1; }
  [[nodiscard]] bool starts_with(uint8_t byte) const { return first_[byte] != 0; }

 private:
  static uint64_t edge(uint32_t node, uint8_t byte) { return (uint64_t{node} << 8) | byte; }

  [[nodiscard]] uint32_t child(uint32_t node, uint8_t byte) const {
    if (node == 0) return first_[byte];
    const uint32_t* found = edges_.find(edge(node, byte));
    return found == nullptr ? 0 : *found;
  }

  uint32_t child_or_new(uint32_t node, uint8_t byte) {
    if (const uint32_t found = child(node, byte); found != 0) return found;
    const auto fresh = static_cast<uint32_t>(values_.size());
    values_.push_back(kNone);
    if (node == 0) {
      first_[byte] = fresh;
    } else {
      edges_.insert(edge(node, byte), fresh);
    }
    return fresh;
  }

  std::array<uint32_t, 256> first_{};      // children of the root
  FlatTable<uint32_t> edges_;              // the other children: (node, byte) → node
  std::vector<int32_t> values_ = {kNone};  // by node; the root is node 0
};

}  // namespace spear
