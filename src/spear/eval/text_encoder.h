// What evaluation needs of a tokenizer: ids of plain text, and which token begins a text. Any
// thread that may use the tokenizer.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace spear {

class Tokenizer;

struct TextEncoder {
  std::function<std::vector<int32_t>(std::string_view text)> encode;  // no special tokens added
  int32_t bos = -1;     // put before texts because the model's tokenizer does so; -1: it does not
  int32_t prefix = -1;  // stands before a continuation without context: BOS, else an end token
};

// The spelling of a special token in a text is taken for text, not for the token.
TextEncoder text_encoder(const Tokenizer& tokenizer);

}  // namespace spear
