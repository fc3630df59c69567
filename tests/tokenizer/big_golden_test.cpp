// Token for token the ids of the Python package `tokenizers`, on the real vocabularies.
#include <cctype>

#include <gtest/gtest.h>

#include "goldens.h"
#include "hostile_texts.h"
#include "support/shared_data.h"

namespace spear::test {
namespace {

class BigGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto path = test_asset(GetParam());
    if (!path) GTEST_SKIP() << kNoAssets;
    tokenizer_.emplace_back(gguf_tokenizer(*path));
  }
  const Tokenizer& tokenizer() const { return tokenizer_.front(); }
  const Json& golden() const { return token_goldens()["big"][GetParam()]; }

  void expect_same(const std::string& text, const Json& wanted, const std::string& name) const {
    const std::vector<int32_t> ids = tokenizer().encode(text, {.parse_special = true});
    EXPECT_EQ(ids.size(), wanted["count"].get<size_t>()) << name;
    EXPECT_EQ(digest(ids), wanted["sha256"].get<std::string>()) << name;
  }

 private:
  std::vector<Tokenizer> tokenizer_;
};

TEST_P(BigGolden, GivesTheIdsOfShortTexts) {
  const Json& texts = token_goldens()["texts"];
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = tokenizer().encode(texts[i].get<std::string>(), {.parse_special = true});
    EXPECT_EQ(ids, golden()["texts"][i].get<std::vector<int32_t>>()) << texts[i];
  }
}

TEST_P(BigGolden, GivesTheIdsOfTheEvaluationTexts) {
  if (!shared_data("wikitext2/wiki.test.raw")) GTEST_SKIP() << kNoSharedData;
  for (const auto& [name, wanted] : golden()["files"].items()) {
    const auto path = shared_data(name);
    ASSERT_TRUE(path) << name;
    expect_same(read_bytes(*path), wanted, name);
  }
}

TEST_P(BigGolden, GivesTheIdsOfHostileUnicode) {
  for (const auto& [name, text] : hostile_texts())
    expect_same(text, golden()["hostile"][name], name);
}

TEST_P(BigGolden, SurvivesItsSectionAndItsExport) {
  const auto again = value_or_throw(Tokenizer::parse(tokenizer().serialize(), "section"));
  const auto exported =
      value_or_throw(Tokenizer::from_json(tokenizer().to_tokenizer_json(), "", "export"));
  EXPECT_EQ(again.serialize(), tokenizer().serialize());
  const std::string text = hostile_texts()["marks and scripts mixed"] + "<|im_end|>";
  const EncodeOptions options{.add_special = true, .parse_special = true};
  EXPECT_EQ(again.encode(text, options), tokenizer().encode(text, options));
  EXPECT_EQ(exported.encode(text, options), tokenizer().encode(text, options));
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, BigGolden,
                         testing::Values("smollm2-135m.gguf", "qwen2.5-coder-0.5b.gguf",
                                         "vocab/ggml-vocab-llama-bpe.gguf",
                                         "vocab/ggml-vocab-gpt-2.gguf"),
                         [](const auto& chosen) {
                           std::string name = chosen.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

}  // namespace
}  // namespace spear::test
