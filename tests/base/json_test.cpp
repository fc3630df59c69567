#include "spear/base/json.h"

#include <gtest/gtest.h>

namespace spear {
namespace {

std::string refusal(std::string_view text, int depth = 64) {
  const Result<Json> value = parse_json(text, "config.json", depth);
  if (value) return "accepted";
  EXPECT_EQ(value.error().code, ErrorCode::kBadFile);
  EXPECT_EQ(value.error().message.rfind("config.json: ", 0), 0u) << value.error().message;
  return value.error().message;
}

std::string nested(int depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(Json, ReadsValuesAndKeepsTheOrderOfKeys) {
  const Json value = parse_json(R"({"z": 1, "a": [true, null, "\u00e9"], "m": 2.5})", "x").value();
  EXPECT_EQ(value.dump(), "{\"z\":1,\"a\":[true,null,\"\xc3\xa9\"],\"m\":2.5}");
  EXPECT_EQ(parse_json("\xef\xbb\xbf{}", "x").value(), Json::object()) << "a byte order mark";
}

TEST(Json, AllowsDepthUpToTheLimitOnly) {
  EXPECT_TRUE(parse_json(nested(64), "x"));
  EXPECT_EQ(refusal(nested(65)), "config.json: JSON nested deeper than 64 levels");
  EXPECT_EQ(refusal(nested(3), 2), "config.json: JSON nested deeper than 2 levels");
  EXPECT_NE(refusal(std::string(10000000, '[')).find("deeper"), std::string::npos);
  EXPECT_NE(refusal(std::string(1000, ']') + nested(2000)), "accepted");
}

TEST(Json, BracketsInsideStringsDoNotCount) {
  EXPECT_TRUE(
      parse_json("[\"" + std::string(200, '[') + "\\\"" + std::string(200, '{') + "\"]", "x"));
}

TEST(Json, RefusesDuplicateKeysInTheSameObjectOnly) {
  EXPECT_EQ(refusal(R"({"a": 1, "b": {"a": 2}, "a": 3})"),
            "config.json: key \"a\" stands twice in one object");
  EXPECT_TRUE(parse_json(R"({"a": 1, "b": {"a": 2}, "c": [{"a": 3}, {"a": 4}]})", "x"));
  EXPECT_EQ(refusal("{\"\\u0061\": 1, \"a\": 2}"),
            "config.json: key \"a\" stands twice in one object");
}

TEST(Json, ManyKeysAreForTheLargeKindOnly) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += (i == 0 ? "\"k" : ",\"k") + std::to_string(i) + "\":0";
  text += "}";
  EXPECT_EQ(refusal(text), "config.json: an object of more than 4096 keys");
  const Result<SortedJson> large = parse_sorted_json(text, "x");
  ASSERT_TRUE(large);
  EXPECT_EQ(large->size(), 200000u);
  EXPECT_EQ(parse_sorted_json(R"({"a": 1, "a": 2})", "x").error().message,
            "x: key \"a\" stands twice in one object");
}

TEST(Json, AHostileKeyNeitherFloodsNorControlsTheMessage) {
  const std::string key = "\\u001b[2J" + std::string(100000, 'k');
  const std::string message = refusal("{\"" + key + "\": 1, \"" + key + "\": 2}");
  EXPECT_LT(message.size(), 500u);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

TEST(Json, RefusesWhatIsNotJson) {
  EXPECT_EQ(refusal(R"({"a": })"), "config.json: not valid JSON at byte 7");
  for (const std::string_view text :
       {"", "   ", "{", "[1,]", "{\"a\" 1}", "nul", "[1] [2]", "'a'", "{a: 1}", "01", "+1", "NaN",
        "[1e]", "\"\\x\"", "\"\xff\"", "\"\\ud800\"", "\"line\nbreak\"", "// comment\n1"})
    EXPECT_NE(refusal(text), "accepted") << text;
  EXPECT_NE(refusal(std::string_view("\"a\0b\"", 5)), "accepted");
}

TEST(Json, RefusesNumbersNoDoubleHolds) {
  EXPECT_NE(refusal("[1e400]"), "accepted");
}

}  // namespace
}  // namespace spear
