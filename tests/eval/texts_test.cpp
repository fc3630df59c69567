#include "spear/eval/texts.h"

#include <span>
#include <string>

#include <gtest/gtest.h>

#include "spear/base/hash.h"

#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace spear {
namespace {

using test::kNoSharedData;
using test::shared_data;
using test::TemporaryDirectory;

constexpr Protocol kLlamaCpp = {512, true, 0};

std::string sha256_of(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

TEST(WikitextJoin, FollowsTheRule) {
  EXPECT_EQ(join_wikitext(" \n = Title = \n \n A line .\n"),
            "\n\n = Title = \n\n\n\n\n A line .\n");
  EXPECT_EQ(join_wikitext("no newline"), "no newline");
  EXPECT_EQ(join_wikitext(""), "");
}

TEST(WikitextJoin, GivesThePublishedText) {
  const auto folder = shared_data("");
  if (!folder) GTEST_SKIP() << kNoSharedData;
  const auto test = load_text({"wikitext2", {}}, *folder);
  ASSERT_TRUE(test);
  EXPECT_EQ(test->size(), 1'296'370u);
  EXPECT_EQ(sha256_of(*test), "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83");
  const auto valid = load_text({"wikitext2-valid", {}}, *folder);
  ASSERT_TRUE(valid);
  EXPECT_EQ(valid->size(), 1'151'766u);
  EXPECT_EQ(sha256_of(*valid), "b44fb967f92b525731216a507d1fbc44b97446b7ef0a2b4d1a893f81f1bbc29e");
}

TEST(KnownText, IsRawForLlamaCppsProtocol) {
  const auto folder = shared_data("");
  if (!folder) GTEST_SKIP() << kNoSharedData;
  const auto raw = load_text({"wikitext2", kLlamaCpp}, *folder);
  ASSERT_TRUE(raw);
  EXPECT_EQ(sha256_of(*raw), "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08");
}

TEST(KnownText, IsCutByCharactersNotBytes) {
  const TemporaryDirectory folder;
  std::string book;
  for (int i = 0; i < 900'010; ++i) book += "é";
  folder.file("text/moby_dick.txt", book);
  const auto text = load_text({"moby_dick", {}}, folder.path());
  ASSERT_TRUE(text);
  EXPECT_EQ(text->size(), 1'800'000u);
}

TEST(Text, KeepsAFileAsItIs) {
  const TemporaryDirectory folder;
  const auto file = folder.file("b.txt", " \n x\r\n");
  EXPECT_EQ(*load_text({file.string(), {}}, {}), " \n x\r\n");
  EXPECT_EQ(display_name({file.string(), kLlamaCpp}), "b@512h");
  EXPECT_EQ(display_name({"wikitext2", {}}), "wikitext2@2048");
}

TEST(Text, RefusesInOneSentence) {
  const TemporaryDirectory folder;
  const auto refusal = [&](std::string_view contents) {
    const auto text = load_text({folder.file("bad.txt", contents).string(), {}}, {});
    return text ? std::string("accepted") : text.error().message;
  };
  EXPECT_NE(refusal("").find("empty"), std::string::npos);
  EXPECT_NE(refusal("ab\xff").find("not UTF-8 at byte 2 (0xff)"), std::string::npos);
  EXPECT_NE(refusal("abc\xe2\x82").find("not UTF-8 at byte 3"), std::string::npos);  // truncated
  const auto missing = load_text({"/no/such/file.txt", {}}, {});
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("/no/such/file.txt"), std::string::npos);
}

TEST(Utf8, AcceptsEveryCharacterAndNothingElse) {
  EXPECT_EQ(first_invalid_utf8("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), 10u);
  EXPECT_EQ(first_invalid_utf8("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"), 10u);
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xed\xa0\x80", "\xe2\x82",
        "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf0\x9f\x98"})
    EXPECT_EQ(first_invalid_utf8(std::string("xy") + bad), 2u) << bad;
}

TEST(DataFolder, SaysWhatIsMissing) {
  const auto folder = find_data_folder("/no/such/data");
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code, ErrorCode::kNotFound);
  EXPECT_NE(folder.error().message.find("SPEAR_DATA"), std::string::npos);
  const TemporaryDirectory own;
  EXPECT_EQ(*find_data_folder(own.path()), own.path());
}

}  // namespace
}  // namespace spear
