// Any bytes as tokenizer.json, tokenizer.model and an artifact's tokenizer section: refused with a
// sentence, or a tokenizer whose section reads back as itself and whose ids are all in its
// vocabulary.
#include <cstdlib>
#include <string_view>

#include "spear/tokenizer/tokenizer.h"

namespace {

void exercise(const spear::Result<spear::Tokenizer>& tokenizer) {
  if (!tokenizer) {
    if (tokenizer.error().message.empty()) std::abort();
    return;
  }
  const std::string section = tokenizer->serialize();
  const auto again = spear::Tokenizer::parse(section, "again");
  if (!again || again->serialize() != section) std::abort();
  constexpr std::string_view kText = "Hello  w\u00f6rld 123\n\xff<s></s> \u6f22\u5b57 the the";
  try {
    for (const bool special : {false, true}) {
      const auto ids = tokenizer->encode(kText, {.add_special = special, .parse_special = special});
      if (tokenizer->decode(ids) != again->decode(again->encode(kText, {special, special})))
        std::abort();
    }
  } catch (const spear::Failure&) {
    // a pattern that backtracks without end
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  exercise(spear::Tokenizer::from_json(bytes, "", "fuzz.json"));
  exercise(spear::Tokenizer::from_sentencepiece(bytes, "", "fuzz.model"));
  exercise(spear::Tokenizer::parse(bytes, "fuzz.spear"));
  return 0;
}
