#include "spear/eval/text_encoder.h"

#include "spear/tokenizer/tokenizer.h"

namespace spear {

TextEncoder text_encoder(const Tokenizer& tokenizer) {
  TextEncoder encoder;
  encoder.encode = [tokenizer](std::string_view text) { return tokenizer.encode(text); };
  const auto begun = tokenizer.encode("a", {.add_special = true});
  if (!begun.empty() && begun.front() == tokenizer.bos_id()) encoder.bos = tokenizer.bos_id();
  encoder.prefix = tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : tokenizer.eos_id();
  return encoder;
}

}  // namespace spear
