// Cuts normalized text into the words that the model sees one by one. Immutable after build():
// every thread.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/tokenizer/definition.h"
#include "spear/tokenizer/pattern.h"

namespace spear {

// Words are views of the text, or of a string in `changed` where a step rewrote them.
struct Words {
  std::vector<std::string_view> list;
  std::deque<std::string> changed;
};

class PreTokenizer {
 public:
  static Result<PreTokenizer> build(const std::vector<SplitStep>& steps, std::string_view source);

  // `at_start`: the text begins where the user's text begins. The views live as long as text and
  // words.
  void cut(std::string_view text, bool at_start, Words& words) const;

 private:
  struct Step {
    SplitStep definition;
    std::vector<Pattern> pattern;  // one for kPattern
  };
  static void apply_pattern(const Step& step, const std::vector<std::string_view>& before,
                            Words& words);

  std::vector<Step> steps_;
};

}  // namespace spear
