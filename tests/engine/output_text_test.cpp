#include "spear/engine/output_text.h"

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/engine/prompt_lookup.h"

#include "engine/byte_tokenizer.h"

namespace spear {
namespace {

struct Shown {
  std::string text;
  bool stopped = false;
  std::string by;
};

Shown run(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
          const std::vector<std::string>& stop, bool include = false) {
  OutputText text(&tokenizer, true, stop, include);
  Shown shown;
  for (const int32_t id : ids) {
    shown.stopped = text.push(id, true);
    for (const std::string& s : stop) {
      EXPECT_TRUE(include || (shown.text + text.certain()).find(s) == std::string::npos);
    }
    shown.text += text.certain();
    text.clear_certain();
    if (shown.stopped) break;
  }
  if (!shown.stopped) text.finish();
  shown.text += text.certain();
  shown.by = text.stopped_by();
  return shown;
}

TEST(OutputText, FindsAStopStringAcrossTokens) {
  const Tokenizer t = test::byte_tokenizer();
  const Shown shown = run(t, test::bytes_of("say STOP now"), {"STOP"});
  EXPECT_EQ(shown.text, "say ");
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.by, "STOP");
  EXPECT_EQ(run(t, test::bytes_of("say STOP now"), {"STOP"}, true).text, "say STOP");
}

TEST(OutputText, TakesTheFirstToBeginAndOfThoseTheLongest) {
  const Tokenizer t = test::byte_tokenizer({"abcd"});
  EXPECT_EQ(run(t, {256}, {"cd", "b"}).by, "b");
  EXPECT_EQ(run(t, {256}, {"ab", "abc", "a"}).by, "abc");
}

TEST(OutputText, GivesOutWhatWasHeldBackInVain) {
  const Tokenizer t = test::byte_tokenizer();
  const Shown shown = run(t, test::bytes_of("aab aaab"), {"aaaa"});
  EXPECT_EQ(shown.text, "aab aaab");
  EXPECT_FALSE(shown.stopped);
}

TEST(OutputText, NeverCutsACharacter) {
  const Tokenizer t = test::byte_tokenizer();
  const std::string text = "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 end";
  OutputText out(&t, true, {}, false);
  std::string all;
  for (const int32_t id : test::bytes_of(text)) {
    out.push(id, true);
    EXPECT_TRUE(out.certain().empty() || static_cast<uint8_t>(out.certain()[0]) < 0x80 ||
                static_cast<uint8_t>(out.certain()[0]) >= 0xC0);
    all += out.certain();
    out.clear_certain();
  }
  EXPECT_EQ(all, text);
}

// Against the plain rule on random texts of few letters.
TEST(OutputText, AgreesWithSearchingTheWholeText) {
  const Tokenizer t = test::byte_tokenizer({"ab", "ba", "aa", "abab", "bbb"});
  Rng rng(8);
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stop;
    for (uint32_t i = 1 + rng.below(3); i > 0; --i) {
      std::string s;
      for (uint32_t n = 1 + rng.below(4); n > 0; --n) s += rng.below(2) == 0 ? 'a' : 'b';
      stop.push_back(s);
    }
    std::vector<int32_t> ids;
    for (int i = 0; i < 8; ++i)
      ids.push_back(rng.below(2) == 0 ? 97 + static_cast<int32_t>(rng.below(2))
                                      : 256 + static_cast<int32_t>(rng.below(5)));
    // The first token that completes a stop string ends the text where the first of them begins.
    std::string whole, expected;
    bool stopped = false;
    for (const int32_t id : ids) {
      whole += t.token_bytes(id);
      size_t first = std::string::npos;
      for (const std::string& s : stop) first = std::min(first, whole.find(s));
      if (first != std::string::npos) {
        expected = whole.substr(0, first);
        stopped = true;
        break;
      }
    }
    if (!stopped) expected = whole;
    const Shown shown = run(t, ids, stop);
    ASSERT_EQ(shown.text, expected);
    ASSERT_EQ(shown.stopped, stopped);
  }
}

TEST(PromptLookup, ProposesWhatFollowedTheLastTokensBefore) {
  PromptLookup lookup(100);
  std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 9, 1, 2, 3};
  std::vector<int32_t> guesses;
  lookup.propose(tokens, 3, guesses);
  EXPECT_EQ(guesses, (std::vector<int32_t>{4, 5, 9}));
  tokens.push_back(7);
  lookup.propose(tokens, 3, guesses);
  EXPECT_TRUE(guesses.empty());
}

TEST(PromptLookup, PausesAfterWrongGuesses) {
  PromptLookup lookup(200);
  std::vector<int32_t> tokens;
  std::vector<int32_t> guesses;
  int proposed = 0;
  for (int i = 0; i < 150; ++i) {
    tokens.push_back(i % 4);
    lookup.propose(tokens, 2, guesses);
    proposed += guesses.empty() ? 0 : 1;
    lookup.learned(std::ssize(guesses), 0);
  }
  EXPECT_LT(proposed, 15);
  EXPECT_GT(proposed, 3);
}

}  // namespace
}  // namespace spear
