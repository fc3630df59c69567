#include "spear/tokenizer/pattern.h"

#include <gtest/gtest.h>

#include "spear/tokenizer/pretokenize.h"
#include "spear/tokenizer/split_patterns.h"

namespace spear::test {
namespace {

std::vector<std::string> cut(SplitStep step, std::string_view text) {
  const auto splitter = value_or_throw(PreTokenizer::build({std::move(step)}, "test"));
  Words words;
  splitter.cut(text, true, words);
  return {words.list.begin(), words.list.end()};
}

SplitStep by(std::string_view pattern, SplitBehavior behavior = SplitBehavior::kIsolated,
             bool invert = false) {
  SplitStep step;
  step.pattern = pattern;
  step.behavior = behavior;
  step.invert = invert;
  return step;
}

using Texts = std::vector<std::string>;

TEST(PreTokenizer, CutsAsTheFamiliesDo) {
  EXPECT_EQ(cut(by(kGpt2Pattern), "I'll  go 12a!\n x"),
            (Texts{"I", "'ll", " ", " go", " 12", "a", "!", "\n", " x"}));
  EXPECT_EQ(cut(by(kLlama3Pattern), "I'LL 12345a!\n\n x"),
            (Texts{"I", "'LL", " ", "123", "45", "a", "!\n\n", " x"}));
  EXPECT_EQ(cut(by(kQwen2Pattern), "x 12"), (Texts{"x", " ", "1", "2"}));
}

TEST(PreTokenizer, BehavesInFiveWays) {
  EXPECT_EQ(cut(by("-"), "a--b"), (Texts{"a", "-", "-", "b"}));
  EXPECT_EQ(cut(by("-", SplitBehavior::kRemoved), "a--b"), (Texts{"a", "b"}));
  EXPECT_EQ(cut(by("-", SplitBehavior::kMergedWithPrevious), "a--b"), (Texts{"a-", "-", "b"}));
  EXPECT_EQ(cut(by("-", SplitBehavior::kMergedWithNext), "a--b"), (Texts{"a", "-", "-b"}));
  EXPECT_EQ(cut(by("-", SplitBehavior::kContiguous), "a--b"), (Texts{"a", "--", "b"}));
  EXPECT_EQ(cut(by("[^-]+", SplitBehavior::kRemoved, true), "a--b"), (Texts{"a", "b"}));
}

TEST(PreTokenizer, KeepsInvalidBytesApart) {
  EXPECT_EQ(cut(by(R"(\p{L}+)"),
                "ab\xff\xfe"
                "cd\xc3"),
            (Texts{"ab", "\xff\xfe", "cd", "\xc3"}));
}

TEST(PreTokenizer, FindsWhatIsFarAway) {
  const std::string far(100'000, 'x');
  EXPECT_EQ(cut(by(R"(\p{N})"), far + "7" + far), (Texts{far, "7", far}));
  std::string wide;
  while (wide.size() < 100'000) wide += "\u00e9\u6f22";
  EXPECT_EQ(cut(by(R"(\p{N})"), wide + "7"), (Texts{wide, "7"}));
}

TEST(Pattern, KnowsTheCharactersOfUnicode16) {
  EXPECT_EQ(cut(by(R"(\p{L}+)"), "\U00031350\U000105c0 "), (Texts{"\U00031350\U000105c0", " "}));
  EXPECT_EQ(cut(by(R"([^\s\p{L}]+)"), "\U00031350!\u180e"), (Texts{"\U00031350", "!\u180e"}));
  EXPECT_EQ(cut(by(R"(\s)"), "a\u180e\u0085"), (Texts{"a\u180e", "\u0085"}));
}

TEST(Pattern, RefusesByNameWhatTheDialectsReadDifferently) {
  for (const auto& [expression, reason] :
       {std::pair{R"(\h)", "uses \\h"}, std::pair{"[a[b]]", "class inside a class"},
        std::pair{"[a-z&&[^b]]", "&&"}, std::pair{"a\\", "lone backslash"},
        std::pair{"(", "is not usable"}, std::pair{R"(\p{L)", "without its }"},
        std::pair{R"(\p{Nonsense})", "is not usable"},
        std::pair{"(?:a{1000}){1000}{1000}", "is not usable"}}) {
    const auto pattern = Pattern::compile(expression, "tokenizer.json");
    ASSERT_FALSE(pattern) << expression;
    EXPECT_NE(pattern.error().message.find(reason), std::string::npos) << pattern.error().message;
  }
  EXPECT_FALSE(Pattern::compile(std::string(70'000, 'a'), "long"));
}

}  // namespace
}  // namespace spear::test
