#include "spear/eval/protocol.h"

#include <numeric>

#include <gtest/gtest.h>

namespace spear {
namespace {

Protocol gptq(int64_t context, int64_t most = 0) {
  return {context, false, most};
}
Protocol half(int64_t context, int64_t most = 0) {
  return {context, true, most};
}

std::vector<int32_t> counting(int64_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(TextSpec, ReadsNameContextHalfAndWindows) {
  const auto spec = parse_text_spec("wikitext2@512h:96");
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->source, "wikitext2");
  EXPECT_EQ(spec->protocol.context, 512);
  EXPECT_TRUE(spec->protocol.second_half);
  EXPECT_EQ(spec->protocol.max_windows, 96);
  EXPECT_EQ(spec->protocol.suffix(), "@512h");
}

TEST(TextSpec, DefaultsToTheGptqProtocol) {
  const auto spec = parse_text_spec("some/book.txt");
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->source, "some/book.txt");
  EXPECT_EQ(spec->protocol.context, 2048);
  EXPECT_FALSE(spec->protocol.second_half);
  EXPECT_EQ(spec->protocol.max_windows, 0);
}

TEST(TextSpec, LetsAPathHoldAnAtSign) {
  const auto spec = parse_text_spec("me@home/book.txt");
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->source, "me@home/book.txt");
  EXPECT_EQ(parse_text_spec("me@home/book.txt@64h")->source, "me@home/book.txt");
}

TEST(TextSpec, RefusesWhatIsNoProtocol) {
  for (const char* text :
       {"wikitext2@", "wikitext2@x", "wikitext2@512x", "wikitext2@512h:", "wikitext2@512:0",
        "wikitext2@-5", "@2048", "", "a@0", "a@3", "a@99999999999", "a@9999999999999999999999"}) {
    const auto spec = parse_text_spec(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_EQ(spec.error().code, ErrorCode::kUsage);
    EXPECT_NE(spec.error().message.find("text '"), std::string::npos);
  }
}

TEST(Windows, ScoreAllButTheFirstToken) {
  const auto windows = cut_windows("t@4", gptq(4), counting(11), 99, {100, 8});
  ASSERT_TRUE(windows);
  EXPECT_EQ(windows->count, 2);
  EXPECT_EQ(windows->text_tokens, 11);
  EXPECT_EQ(windows->protocol.predictions(), 3);
  EXPECT_EQ(windows->tokens, counting(8));  // no BOS inside: the text has its own at the start
  const auto targets = windows->targets(1);
  EXPECT_EQ(std::vector<int32_t>(targets.begin(), targets.end()), (std::vector<int32_t>{5, 6, 7}));
}

TEST(Windows, ScoreTheSecondHalfFromBosOnward) {
  const auto windows = cut_windows("t@8h", half(8), counting(17), 99, {100, 8});
  ASSERT_TRUE(windows);
  EXPECT_EQ(windows->count, 2);
  EXPECT_EQ(windows->protocol.first(), 4);
  EXPECT_EQ(windows->protocol.predictions(), 3);  // llama.cpp: context - 1 - context / 2
  EXPECT_EQ(windows->tokens[0], 99);
  EXPECT_EQ(windows->tokens[8], 99);
  EXPECT_EQ(windows->tokens[9], 9);
  const auto targets = windows->targets(1);
  EXPECT_EQ(std::vector<int32_t>(targets.begin(), targets.end()),
            (std::vector<int32_t>{13, 14, 15}));
}

TEST(Windows, AreTheFirstOnesWhenLimited) {
  const auto windows = cut_windows("t@4", gptq(4, 1), counting(11), -1, {100, 8});
  ASSERT_TRUE(windows);
  EXPECT_EQ(windows->count, 1);
  EXPECT_EQ(windows->text_tokens, 11);
}

TEST(Windows, HashTellsTextsAndProtocolsApart) {
  const auto hash = [](Protocol protocol, int64_t n) {
    return cut_windows("t", protocol, counting(n), -1, {100, 8})->content_hash;
  };
  EXPECT_EQ(hash(gptq(4), 8), hash(gptq(4), 9));
  EXPECT_NE(hash(gptq(4), 8), hash(gptq(4), 12));
  EXPECT_NE(hash(gptq(4), 8), hash(half(4), 8));
  EXPECT_NE(hash(gptq(4), 8), hash(gptq(8), 8));
}

TEST(Windows, RefuseWhatCannotBeScored) {
  const auto refusal = [](const Protocol& protocol, const std::vector<int32_t>& ids) {
    const auto windows = cut_windows("book@8", protocol, ids, -1, {10, 8});
    return windows ? std::string("accepted") : windows.error().message;
  };
  EXPECT_NE(refusal(gptq(8), {}).find("empty"), std::string::npos);
  EXPECT_NE(refusal(gptq(8), counting(1)).find("1 token"), std::string::npos);
  EXPECT_NE(refusal(gptq(8), counting(7)).find("do not fill one window of 8"), std::string::npos);
  EXPECT_NE(refusal(gptq(16), counting(10)).find("at most 8"), std::string::npos);
  EXPECT_NE(refusal(gptq(8), counting(11)).find("token 10 at place 10"), std::string::npos);
  EXPECT_NE(refusal(gptq(8), {0, 1, 2, -1, 4, 5, 6, 7}).find("token -1"), std::string::npos);
}

}  // namespace
}  // namespace spear
