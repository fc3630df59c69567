#include "spear/base/printable.h"

#include <gtest/gtest.h>

namespace spear {
namespace {

TEST(Printable, LeavesPrintableTextAlone) {
  EXPECT_EQ(printable(""), "\"\"");
  EXPECT_EQ(printable("model.layers.0"), "\"model.layers.0\"");
  EXPECT_EQ(printable("h\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80"),
            "\"h\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80\"");
}

TEST(Printable, EscapesQuotesAndBackslashes) {
  EXPECT_EQ(printable("a\"b\\c"), "\"a\\\"b\\\\c\"");
}

TEST(Printable, ShowsControlCharactersAsNumbers) {
  EXPECT_EQ(printable(std::string_view("a\n\0\x1b[31m\x7f", 9)), "\"a\\x0a\\x00\\x1b[31m\\x7f\"");
  EXPECT_EQ(printable("\xc2\x9b"), "\"\\xc2\\x9b\"") << "a C1 control introduces terminal commands";
  EXPECT_EQ(printable("\xe2\x80\xae"), "\"\\xe2\\x80\\xae\"") << "right-to-left override";
}

TEST(Printable, ShowsInvalidUtf8AsNumbers) {
  EXPECT_EQ(printable("\xff"), "\"\\xff\"");
  EXPECT_EQ(printable("\xc3"), "\"\\xc3\"") << "cut short";
  EXPECT_EQ(printable("\xc0\xaf"), "\"\\xc0\\xaf\"") << "overlong";
  EXPECT_EQ(printable("\xe0\x80\xaf"), "\"\\xe0\\x80\\xaf\"") << "overlong";
  EXPECT_EQ(printable("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\"") << "a surrogate";
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\"\\xf4\\x90\\x80\\x80\"") << "beyond U+10FFFF";
}

TEST(Printable, CutsBetweenCharactersAndSaysSo) {
  EXPECT_EQ(printable("abcdef", 6), "\"abcdef\"");
  EXPECT_EQ(printable("abcdef", 3), "\"abc\"...");
  EXPECT_EQ(printable("ab\xc3\xa9", 3), "\"ab\"...");
  EXPECT_LE(printable(std::string(1 << 20, '\n')).size(), 80u * 4 + 5);
}

}  // namespace
}  // namespace spear
