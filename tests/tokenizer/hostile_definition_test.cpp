// Vocabularies that nobody should trust: each is refused in one sentence that says what is wrong.
// The numbers are those of the list of hostile inputs in the design.
#include <chrono>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "goldens.h"

namespace spear::test {
namespace {

void expect_refused(const Result<Tokenizer>& result, std::string_view reason) {
  ASSERT_FALSE(result) << "accepted, expected: " << reason;
  EXPECT_NE(result.error().message.find(reason), std::string::npos) << result.error().message;
  EXPECT_EQ(result.error().message.find('\n'), std::string::npos) << result.error().message;
}

void expect_json_refused(const std::string& json, std::string_view reason) {
  expect_refused(Tokenizer::from_json(json, "", "tokenizer.json"), reason);
}

// A file with this vocabulary, these merges and more fields.
std::string bpe(std::string_view vocab, std::string_view merges, std::string_view more = "") {
  return std::string(R"({"model": {"type": "BPE", "vocab": )")
      .append(vocab)
      .append(R"(, "merges": )")
      .append(merges)
      .append("}")
      .append(more)
      .append("}");
}

TEST(HostileTokenizer, RefusesDuplicateIdsGapsAndIdsBeyondTheVocabulary) {
  expect_json_refused(bpe(R"({"a": 0, "b": 0})", "[]"), "the id 0 belongs to both \"a\" and \"b\"");
  expect_json_refused(bpe(R"({"a": 0, "a": 1})", "[]"), "stands twice");
  expect_json_refused(bpe(R"({"a": 0, "b": 2})", "[]"),
                      "no token has the id 1, though ids reach 2");
  expect_json_refused(bpe(R"({"a": -1})", "[]"), "is -1, expected an integer from 0");
  expect_json_refused(bpe(R"({"a": 99999999999})", "[]"), "expected an integer from 0");
  expect_json_refused(bpe(R"({"a": 18446744073709551615})", "[]"), "expected an integer from 0");
  expect_json_refused(bpe(R"({"a": 4194303})", "[]"), "no token has the id 0");
  expect_json_refused(bpe(R"({"a": 0.5})", "[]"), "is 0.5, expected an integer");
  expect_json_refused(bpe(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 5, "content": "x"}])"),
                      "no token has the id 1");
  expect_json_refused(bpe(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 0, "content": "x"}])"),
                      "the id 0 belongs to both");
  expect_json_refused(bpe(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 1, "content": "a"}])"),
                      "the vocabulary gives it 0");
}

TEST(HostileTokenizer, RefusesMergesThatNameUnknownTokens) {
  expect_json_refused(bpe(R"({"a": 0, "b": 1})", R"(["a c"])"), "of which one is no token");
  expect_json_refused(bpe(R"({"a": 0, "b": 1})", R"(["a b"])"), "makes \"ab\", which is no token");
  expect_json_refused(bpe(R"({"a": 0})", R"(["a"])"), "expected two tokens");
  expect_json_refused(bpe(R"({"a": 0})", R"([["a", "a", "a"]])"), "expected two tokens");
  expect_json_refused(bpe(R"({"a": 0})", "[7]"), "expected two tokens");
  expect_json_refused(bpe(R"({"a": 0})", R"("a a")"), "expected an array");
}

TEST(HostileTokenizer, RefusesHugeAddedTokensAndSurvivesThoseThatContainEachOther) {
  const std::string huge(600, 'x');
  expect_json_refused(
      bpe(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 1, "content": ")" + huge + R"("}])"),
      "at most 512 are allowed");
  expect_json_refused(bpe(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 1, "content": ""}])"),
                      "is empty");
  const auto nested = value_or_throw(Tokenizer::from_json(
      bpe(R"({"a": 0})", "[]",
          R"(, "added_tokens": [{"id": 1, "content": "aa", "normalized": true, "lstrip": true, "rstrip": true},
              {"id": 2, "content": "aaa"}], "normalizer": {"type": "Replace", "pattern": {"String": "a"},
              "content": "aa"})"),
      "", "nested"));
  EXPECT_EQ(nested.encode("aaaaa").size(), 2u);
}

TEST(HostileTokenizer, StopsAPatternThatBacktracksWithoutEnd) {
  const std::string json = bpe(R"({"a": 0, "b": 1})", "[]", R"(, "pre_tokenizer": {"type": "Split",
      "pattern": {"Regex": "(?:a|a?)+b(?!a)|(a*)*c"}, "behavior": "Isolated"})");
  const auto tokenizer = value_or_throw(Tokenizer::from_json(json, "", "slow"));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW((void)tokenizer.encode(std::string(5000, 'a') + "bac"), Failure);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(HostileTokenizer, EncodesLongAndRepeatedTexts) {
  const Tokenizer tokenizer = tiny_tokenizer("tiny_byte_level.json");
  std::string text;
  while (text.size() < 10'000'000) text += "the quick brown fox 123 ";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  text.assign(2'000'000, 'e');
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(HostileTokenizer, RefusesDeepNesting) {
  expect_json_refused(std::string(100'000, '['), "nested deeper");
  std::string deep = R"({"type": "Sequence", "normalizers": [)";
  std::string json = bpe(R"({"a": 0})", "[]", R"(, "normalizer": )");
  json.pop_back();
  for (int i = 0; i < 100; ++i) json += deep;
  expect_json_refused(json, "nested deeper");
}

TEST(HostileTokenizer, RefusesWhatIsNoTokenizerFile) {
  expect_json_refused("", "not valid JSON");
  expect_json_refused("[]", "expected an object");
  expect_json_refused("{}", "has no field \"model\"");
  expect_json_refused("\xff\xfe{}", "not valid JSON");
  expect_json_refused(bpe(R"({"\ud800": 0})", "[]"), "not valid JSON");
  expect_json_refused(bpe("{}", "[]"), "has no tokens");
  expect_json_refused(bpe("7", "[]"), "expected an object");
  expect_json_refused(R"({"model": {"type": "WordPiece", "vocab": {}}})",
                      "has the type \"WordPiece\"");
  expect_json_refused(R"({"model": {"type": "Unigram", "unk_id": 3, "vocab": [["a", 0.5]]}})",
                      "outside the vocabulary of 1");
  expect_json_refused(R"({"model": {"type": "Unigram", "vocab": [["a", 0.5]]}})",
                      "without an unknown token");
  expect_json_refused(R"({"model": {"type": "Unigram", "vocab": [["a", "b"]]}})",
                      "expected a number");
  const std::string good = golden_bytes("tiny_byte_level.json");
  for (size_t cut = 0; cut < good.size(); cut += 997)
    EXPECT_FALSE(Tokenizer::from_json(good.substr(0, cut), "", "cut")) << cut;
}

TEST(HostileTokenizer, NamesWhatItDoesNotRun) {
  const auto with = [](std::string_view field, std::string_view value) {
    return bpe(R"({"a": 0})", "[]", ", \"" + std::string(field) + "\": " + std::string(value));
  };
  expect_json_refused(with("normalizer", R"({"type": "BertNormalizer"})"),
                      "normalizer has the type \"BertNormalizer\", which spear does not run");
  expect_json_refused(
      with("pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]})"),
      "pre_tokenizer.pretokenizers[0] has the type \"Whitespace\"");
  expect_json_refused(with("post_processor", R"({"type": "Odd"})"),
                      "post_processor has the type \"Odd\"");
  expect_json_refused(with("decoder", R"({"type": "WordPiece"})"),
                      "decoder has the type \"WordPiece\"");
  expect_json_refused(
      with("pre_tokenizer",
           R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}})"),
      "is not usable");
  expect_json_refused(with("normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "%"})"),
                      "expected base64");
  expect_json_refused(
      with("normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="})"),
      "announces a trie of 0 bytes");
  expect_json_refused(
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}})",
      "has a dropout");
}

TEST(HostileTokenizer, RefusesBrokenGgufKeys) {
  const auto refused = [](auto&& change, std::string_view reason) {
    GgufVocabulary vocabulary = small_vocabulary();
    change(vocabulary);
    expect_refused(Tokenizer::from_gguf(vocabulary, "model.gguf"), reason);
  };
  refused([](GgufVocabulary& v) { v.model = "bert"; }, "tokenizer.ggml.model is \"bert\"");
  refused([](GgufVocabulary& v) { v.pre = "other"; }, "tokenizer.ggml.pre is \"other\"");
  refused([](GgufVocabulary& v) { v.tokens[5] = v.tokens[4]; }, "stands twice, as 4 and 5");
  refused([](GgufVocabulary& v) { v.tokens[7] = "\xff"; }, "token 7 is not valid UTF-8");
  refused([](GgufVocabulary& v) { v.tokens[7] = std::string(5000, 'a'); },
          "at most 4096 are allowed");
  refused([](GgufVocabulary& v) { v.tokens.clear(); }, "token_type has");
  refused([](GgufVocabulary& v) { v.token_type[3] = 9; }, "tokenizer.ggml.token_type[3] is 9");
  refused([](GgufVocabulary& v) { v.eos_token_id = 1'000'000; },
          "eos_token_id is 1000000, outside");
  refused([](GgufVocabulary& v) { v.bos_token_id = -3; }, "bos_token_id is -3, outside");
  refused([](GgufVocabulary& v) { v.merges[0] = "nospace"; }, "not two tokens");
  refused([](GgufVocabulary& v) { v.merges[0] = ""; }, "not two tokens");
  refused([](GgufVocabulary& v) { v.merges[0] = "h zz"; }, "names an unknown token");
  refused([](GgufVocabulary& v) { v.model = "llama"; }, "scores has 0 entries");
  refused(
      [](GgufVocabulary& v) {
        v.model = "llama";
        v.scores.assign(v.tokens.size(), std::nanf(""));
      },
      "not a finite number");
  refused([](GgufVocabulary& v) { v.chat_template = "\xc3"; }, "chat template is not valid UTF-8");
}

TEST(HostileTokenizer, RefusesEveryCutOfASentencePieceModelOrReadsIt) {
  const std::string good = golden_bytes("tiny_sp_rules.model");
  for (size_t cut = 0; cut < good.size(); cut += 13) {
    const auto result =
        Tokenizer::from_sentencepiece(std::string_view(good).substr(0, cut), "", "cut.model");
    if (!result) {
      EXPECT_NE(result.error().message.find("cut.model"), std::string::npos)
          << result.error().message;
    }
  }
  const auto refused = [](std::string_view bytes, std::string_view reason) {
    expect_refused(Tokenizer::from_sentencepiece(bytes, "", "x.model"), reason);
  };
  refused("", "has no tokens");
  refused("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "announces");
  refused("\x0a", "announces 1 bytes, 0 are left");
  refused("\x0b", "wire type 3");
  refused("\x08\x01", "field 1 with wire type 0, expected 2");
  refused(std::string_view("\x0a\x05\x0a\x01"
                           "a\x18\x09",
                           7),
          "unknown type 9");
  refused(std::string(11, '\xff'), "more than 10 bytes");
  refused("\x12\x02\x18\x03", "model type 3");
}

TEST(HostileTokenizer, RefusesEveryCutAndChangeOfASection) {
  const std::string good = tiny_tokenizer("tiny_byte_level.json").serialize();
  for (size_t cut = 0; cut < good.size(); cut += 17)
    EXPECT_FALSE(Tokenizer::parse(std::string_view(good).substr(0, cut), "cut")) << cut;
  EXPECT_FALSE(Tokenizer::parse(good + "x", "long"));
  std::string newer = good;
  newer[4] = 2;
  expect_refused(Tokenizer::parse(newer, "model.spear"), "version 2; this spear reads version 1");
  for (size_t at = 0; at < good.size(); at += 7) {
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] ^ 0xff);
    (void)Tokenizer::parse(changed, "changed");  // refused or another tokenizer, never a crash
  }
}

TEST(HostileTokenizer, SurvivesAHostileCharsmap) {
  // A double array whose units point everywhere, and replacements that are named out of range.
  std::string blob = std::string("\x40\x00\x00\x00", 4);
  uint32_t state = 1;
  for (int i = 0; i < 64; ++i)
    blob.push_back(static_cast<char>((state = state * 1664525 + 1013904223) >> 24));
  blob += std::string("ab\0", 3);
  for (const NormalizerKind kind : {NormalizerKind::kCharsmap, NormalizerKind::kSentencePiece}) {
    TokenizerDefinition definition = tiny_tokenizer("tiny_byte_level.json").definition();
    NormalizerStep step;
    step.kind = kind;
    step.pattern = blob;
    definition.normalizer = {step};
    const auto tokenizer = value_or_throw(Tokenizer::from_definition(definition, "charsmap"));
    for (int byte = 0; byte < 256; ++byte)
      (void)tokenizer.encode(std::string(3, static_cast<char>(byte)));
  }
}

}  // namespace
}  // namespace spear::test
