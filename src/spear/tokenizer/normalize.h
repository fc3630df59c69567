// Applies the normalizer steps of a definition to a piece of text. Invalid UTF-8 passes through
// unchanged. Immutable after build(): safe from every thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/tokenizer/charsmap.h"
#include "spear/tokenizer/definition.h"
#include "spear/tokenizer/pattern.h"
#include "spear/tokenizer/trie.h"

namespace spear {

class Normalizer {
 public:
  static Result<Normalizer> build(const std::vector<NormalizerStep>& steps,
                                  const std::vector<std::string>& user_defined,
                                  std::string_view source);

  [[nodiscard]] bool empty() const { return steps_.empty(); }
  [[nodiscard]] std::string apply(std::string_view text) const;

 private:
  struct Step {
    NormalizerStep definition;
    std::vector<Pattern> pattern;    // one for kReplacePattern
    std::vector<Charsmap> charsmap;  // one where a charsmap is given
  };
  [[nodiscard]] std::string apply_step(const Step& step, std::string text) const;
  [[nodiscard]] std::string sentencepiece(const Step& step, std::string_view text) const;

  std::vector<Step> steps_;
  Trie user_defined_;  // pieces that SentencePiece leaves alone
};

}  // namespace spear
