// Token for token the ids of `tokenizers` and `sentencepiece`, on vocabularies small enough for the
// tree.
#include <gtest/gtest.h>

#include "goldens.h"

namespace spear::test {
namespace {

class TinyGolden : public testing::TestWithParam<const char*> {};

TEST_P(TinyGolden, GivesTheSameIds) {
  const Tokenizer tokenizer = tiny_tokenizer(GetParam());
  const Json& golden = token_goldens()["tiny"][GetParam()];
  const Json& texts = token_goldens()["texts"];
  // SentencePiece itself never reads "<s>" as a token.
  const bool parse_special = std::string_view(GetParam()).ends_with(".json");
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text, {.parse_special = parse_special}),
              golden["texts"][i].get<std::vector<int32_t>>())
        << texts[i];
    if (!golden.contains("with special")) continue;
    EXPECT_EQ(tokenizer.encode(text, {.add_special = true, .parse_special = true}),
              golden["with special"][i].get<std::vector<int32_t>>())
        << texts[i];
  }
}

TEST_P(TinyGolden, SurvivesItsSection) {
  const Tokenizer tokenizer = tiny_tokenizer(GetParam());
  const auto again = value_or_throw(Tokenizer::parse(tokenizer.serialize(), "section"));
  EXPECT_EQ(again.serialize(), tokenizer.serialize());
  for (const Json& text : token_goldens()["texts"])
    EXPECT_EQ(again.encode(text.get<std::string>()), tokenizer.encode(text.get<std::string>()))
        << text;
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TinyGolden,
                         testing::Values("tiny_byte_level.json", "tiny_metaspace.json",
                                         "tiny_llama.json", "tiny_sp_bpe.model",
                                         "tiny_sp_unigram.model", "tiny_sp_rules.model"),
                         [](const auto& chosen) {
                           const std::string name = chosen.param;
                           return name.substr(0, name.find('.'));
                         });

}  // namespace
}  // namespace spear::test
