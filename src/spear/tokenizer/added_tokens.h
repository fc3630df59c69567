// Finds added tokens in a text: leftmost, longest, with the flags of Hugging Face's AddedToken.
// Immutable once filled: safe from every thread.
#pragma once

#include <string_view>
#include <vector>

#include "spear/tokenizer/definition.h"
#include "spear/tokenizer/trie.h"

namespace spear {

// A stretch of text: a token (id ≥ 0) or what lies between tokens.
struct TextPart {
  std::string_view text;
  int32_t id = -1;
};

class AddedTokens {
 public:
  // Only the tokens that are matched before (or after) normalization.
  AddedTokens(const std::vector<AddedToken>& tokens, bool normalized);

  // `with_special`: special tokens are looked for as well.
  void split(std::string_view text, bool with_special, std::vector<TextPart>& parts) const;
  [[nodiscard]] bool empty() const { return tokens_.empty(); }

 private:
  std::vector<AddedToken> tokens_;
  Trie by_content_;  // → index in tokens_
};

}  // namespace spear
