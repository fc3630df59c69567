#include "spear/tokenizer/tokenizer.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "goldens.h"

namespace spear::test {
namespace {

Tokenizer small() {
  return value_or_throw(Tokenizer::from_gguf(small_vocabulary(), "small"));
}

TEST(Tokenizer, JoinsPairsInTheOrderOfMerges) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.encode("hello hello hell"),
            (std::vector<int32_t>{tokenizer.id_of("hello"), tokenizer.id_of("\u0120hello"),
                                  tokenizer.id_of("\u0120"), tokenizer.id_of("hell")}));
}

TEST(Tokenizer, ReadsSpecialTokensOnlyWhenAsked) {
  const Tokenizer tokenizer = small();
  const std::string text = "a<|im_end|>";
  EXPECT_EQ(tokenizer.encode(text).size(), text.size());
  EXPECT_EQ(tokenizer.encode(text, {.parse_special = true}),
            (std::vector<int32_t>{tokenizer.id_of("a"), tokenizer.id_of("<|im_end|>")}));
}

TEST(Tokenizer, KnowsWhereGenerationStops) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.stop_ids(), (std::vector<int32_t>{tokenizer.id_of("<|endoftext|>"),
                                                        tokenizer.id_of("<|im_end|>")}));
  EXPECT_EQ(tokenizer.eos_id(), tokenizer.id_of("<|endoftext|>"));
}

TEST(Tokenizer, RoundTripsArbitraryBytes) {
  const Tokenizer tokenizer = small();
  Rng rng(7);
  for (int round = 0; round < 200; ++round) {
    std::string bytes(rng.below(300), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(round % 2 == 0 ? 256 : 128));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
}

TEST(Tokenizer, RoundTripsArbitraryBytesByByteFallback) {
  const Tokenizer tokenizer = tiny_tokenizer("tiny_sp_bpe.model");
  Rng rng(8);
  for (int round = 0; round < 200; ++round) {
    std::string bytes(1 + rng.below(100), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
}

TEST(Tokenizer, RoundTripsEveryPublishedByteLevelVocabulary) {
  const auto path = test_asset("vocab/ggml-vocab-gpt-2.gguf");
  if (!path) GTEST_SKIP() << kNoAssets;
  const Tokenizer tokenizer = gguf_tokenizer(*path);
  Rng rng(9);
  std::string bytes(1 << 20, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
}

TEST(Tokenizer, TakesNoLongerForOneWordThanForMany) {
  const Tokenizer tokenizer = small();
  for (const char* word : {"a", "hello", "l", "\xcc\x81", " ", "\n"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += word;
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << word;
  }
}

TEST(Tokenizer, EncodesFromManyThreads) {
  const Tokenizer tokenizer = tiny_tokenizer("tiny_byte_level.json");
  std::string text;
  for (const Json& part : token_goldens()["texts"]) text += part.get<std::string>();
  const auto wanted = tokenizer.encode(text);
  std::vector<std::vector<int32_t>> found(4);
  std::vector<std::thread> threads;
  for (auto& ids : found) threads.emplace_back([&] { ids = tokenizer.encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : found) EXPECT_EQ(ids, wanted);
}

TEST(Tokenizer, RefusesIdsOutOfRange) {
  const Tokenizer tokenizer = small();
  for (const int32_t id : {-1, tokenizer.vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_FALSE(tokenizer.is_id(id));
    EXPECT_THROW((void)tokenizer.decode(std::vector<int32_t>{id}), Failure);
    EXPECT_THROW((void)tokenizer.token_bytes(id), Failure);
  }
}

TEST(Tokenizer, ReadsItsConfiguration) {
  const std::string config =
      R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": "<pad>",
    "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})";
  const auto tokenizer = value_or_throw(
      Tokenizer::from_json(golden_bytes("tiny_byte_level.json"), config, "tokenizer.json"));
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_EQ(tokenizer.padding_id(), 2);
  EXPECT_EQ(tokenizer.chat_template(), "d");
}

TEST(Tokenizer, AddsTheConfigurationsTokensToASentencePieceModel) {
  const std::string config = R"({"add_bos_token": false, "added_tokens_decoder": {
    "0": {"content": "<unk>", "special": true}, "700": {"content": "<extra>", "special": false}}})";
  const auto tokenizer = value_or_throw(
      Tokenizer::from_sentencepiece(golden_bytes("tiny_sp_bpe.model"), config, "tokenizer.model"));
  EXPECT_EQ(tokenizer.vocab_size(), 701);
  EXPECT_EQ(tokenizer.id_of("<extra>"), 700);
  const auto ids = tokenizer.encode("a<extra>", {.add_special = true});
  EXPECT_EQ(ids.back(), 700);
  EXPECT_NE(ids.front(), tokenizer.bos_id());
}

}  // namespace
}  // namespace spear::test
