#include "spear/tokenizer/normalize.h"

#include <chrono>

#include <gtest/gtest.h>

#include "spear/tokenizer/compose.h"

namespace spear::test {
namespace {

TEST(UnicodeForm, ComposesAndDecomposes) {
  EXPECT_EQ(unicode_form("e\u0301 A\u030a \u1100\u1161\u11a8", UnicodeForm::kNfc),
            "\u00e9 \u00c5 \uac01");
  EXPECT_EQ(unicode_form("\u00e9 \uac01", UnicodeForm::kNfd), "e\u0301 \u1100\u1161\u11a8");
  EXPECT_EQ(unicode_form("\ufb01\uff21\u2460", UnicodeForm::kNfkc), "fiA1");
  EXPECT_EQ(unicode_form("\u212b", UnicodeForm::kNfkd), "A\u030a");
  EXPECT_EQ(unicode_form("a\u0301\u0316", UnicodeForm::kNfd), "a\u0316\u0301");
}

TEST(UnicodeForm, LeavesInvalidBytesAlone) {
  EXPECT_EQ(unicode_form("e\xff\u0301\xcc", UnicodeForm::kNfc), "e\xff\u0301\xcc");
}

TEST(UnicodeForm, TakesLinearTimeForAMegabyteOfMarks) {
  std::string text = "a";
  while (text.size() < (1 << 20)) text += "\u0301\u0316\u0334";
  const auto begin = std::chrono::steady_clock::now();
  const std::string out = unicode_form(text, UnicodeForm::kNfd);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(out.size(), text.size());
  EXPECT_EQ(out.substr(1, 4), "\u0334\u0334");
}

std::string normalized(NormalizerStep step, std::string_view text) {
  return value_or_throw(Normalizer::build({std::move(step)}, {}, "test")).apply(text);
}

TEST(Normalizer, RunsEachStep) {
  NormalizerStep step;
  step.kind = NormalizerKind::kPrepend;
  step.content = ">";
  EXPECT_EQ(normalized(step, "a"), ">a");
  EXPECT_EQ(normalized(step, ""), "");
  step.kind = NormalizerKind::kReplace;
  step.pattern = "aa";
  EXPECT_EQ(normalized(step, "aaaxaa"), ">ax>");
  step.kind = NormalizerKind::kReplacePattern;
  step.pattern = "a+";
  EXPECT_EQ(normalized(step, "aaaxaa"), ">x>");
  step.kind = NormalizerKind::kStrip;
  step.left = true;
  EXPECT_EQ(normalized(step, "\u3000 a\u00a0 "), "a\u00a0 ");
  step.right = true;
  EXPECT_EQ(normalized(step, "\u3000 a\u00a0 "), "a");
}

TEST(Normalizer, TreatsSpacesAsSentencePieceDoes) {
  NormalizerStep step;
  step.kind = NormalizerKind::kSentencePiece;
  step.dummy_prefix = step.squeeze_spaces = step.escape_spaces = true;
  EXPECT_EQ(normalized(step, "  a   b "), "\u2581a\u2581b");
  EXPECT_EQ(normalized(step, "   "), "");
  step.squeeze_spaces = false;
  EXPECT_EQ(normalized(step, " a  "), "\u2581\u2581a\u2581\u2581");
  step.dummy_prefix = false;
  EXPECT_EQ(normalized(step, "a"), "a");
}

}  // namespace
}  // namespace spear::test
