// to_tokenizer_json() writes what gives the same ids. That the `tokenizers` package reads it the
// same way is tools/check_tokenizer_export.py's business.
#include <gtest/gtest.h>

#include "spear/tokenizer/base64.h"

#include "goldens.h"

namespace spear::test {
namespace {

void expect_same_ids(const Tokenizer& tokenizer, const Tokenizer& exported) {
  EXPECT_EQ(exported.vocab_size(), tokenizer.vocab_size());
  const EncodeOptions options{.add_special = true, .parse_special = true};
  for (const Json& text : token_goldens()["texts"])
    EXPECT_EQ(exported.encode(text.get<std::string>(), options),
              tokenizer.encode(text.get<std::string>(), options))
        << text;
}

TEST(Export, KeepsTheIds) {
  for (const char* name :
       {"tiny_byte_level.json", "tiny_metaspace.json", "tiny_llama.json", "tiny_sp_bpe.model"}) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = tiny_tokenizer(name);
    expect_same_ids(tokenizer, value_or_throw(Tokenizer::from_json(tokenizer.to_tokenizer_json(),
                                                                   "", "exported")));
  }
}

TEST(Export, KeepsTheIdsOfGgufVocabularies) {
  for (const char* pre : {"gpt-2", "smollm", "qwen2", "llama-bpe"}) {
    SCOPED_TRACE(pre);
    GgufVocabulary vocabulary = small_vocabulary();
    vocabulary.pre = pre;
    const auto tokenizer = value_or_throw(Tokenizer::from_gguf(vocabulary, "small"));
    expect_same_ids(tokenizer, value_or_throw(Tokenizer::from_json(tokenizer.to_tokenizer_json(),
                                                                   "", "exported")));
  }
}

TEST(Base64, RoundTripsAndRefusesWhatIsNone) {
  std::string bytes;
  for (int i = 0; i < 70; ++i) {
    EXPECT_EQ(base64_decode(base64_encode(bytes)), bytes);
    bytes.push_back(static_cast<char>(i * 37));
  }
  for (const char* text : {"A", "AAA", "A===", "AA=A", "AA!A", "AAAA AAA"})
    EXPECT_FALSE(base64_decode(text)) << text;
}

}  // namespace
}  // namespace spear::test
