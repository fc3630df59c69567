// The vocabulary as a tree of bytes, laid out so that a walk is one pass forward: every node stands
// before its children and knows where its subtree ends. Immutable: safe from every thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/tokenizer/tokenizer.h"

namespace spear {

class TokenTrie {
 public:
  static constexpr size_t kLongest = 256;  // bytes of a token; longer ones are left out

  // Special tokens and tokens without bytes are left out.
  explicit TokenTrie(const Tokenizer& tokenizer);

  struct Node {
    int32_t end = 0;  // the first node after the subtree
    int32_t token_begin = 0;
    uint16_t token_count = 0;
    uint16_t depth = 0;  // 1: the first byte of a token
    uint8_t byte = 0;
  };
  [[nodiscard]] std::span<const Node> nodes() const { return nodes_; }
  [[nodiscard]] std::span<const int32_t> tokens(const Node& node) const {
    return std::span(tokens_).subspan(static_cast<size_t>(node.token_begin), node.token_count);
  }
  [[nodiscard]] const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  Tokenizer tokenizer_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  // by their bytes
};

}  // namespace spear
