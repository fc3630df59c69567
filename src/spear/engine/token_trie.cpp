#include "spear/engine/token_trie.h"

#include <algorithm>
#include <string_view>

namespace spear {

TokenTrie::TokenTrie(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    if (!tokenizer.is_special(id) && !bytes.empty() && bytes.size() <= kLongest)
      tokens_.push_back(id);
  }
  std::ranges::sort(tokens_, [&](int32_t a, int32_t b) {
    const std::string_view x = tokenizer.token_bytes(a), y = tokenizer.token_bytes(b);
    return x != y ? x < y : a < b;
  });
  std::vector<int32_t> open;  // nodes from the root to where we are
  std::string_view before;
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const std::string_view bytes = tokenizer.token_bytes(tokens_[t]);
    size_t shared = 0;
    while (shared < before.size() && shared < bytes.size() && before[shared] == bytes[shared])
      ++shared;
    for (; open.size() > shared; open.pop_back())
      nodes_[static_cast<size_t>(open.back())].end = static_cast<int32_t>(nodes_.size());
    for (size_t i = shared; i < bytes.size(); ++i) {
      open.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({.token_begin = static_cast<int32_t>(t),
                        .depth = static_cast<uint16_t>(i + 1),
                        .byte = static_cast<uint8_t>(bytes[i])});
    }
    Node& node = nodes_[static_cast<size_t>(open.back())];
    if (node.token_count == 0) node.token_begin = static_cast<int32_t>(t);
    if (node.token_count < UINT16_MAX) ++node.token_count;
    before = bytes;
  }
  for (; !open.empty(); open.pop_back())
    nodes_[static_cast<size_t>(open.back())].end = static_cast<int32_t>(nodes_.size());
}

}  // namespace spear
