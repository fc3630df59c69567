// The same prompts as Jinja2 makes, set up as transformers does: published templates, and snippets
// of our own.
#include <span>

#include <gtest/gtest.h>

#include "spear/base/hash.h"
#include "spear/tokenizer/chat_template.h"

#include "goldens.h"

namespace spear::test {
namespace {

std::tm golden_time() {
  std::tm now{};
  now.tm_year = 126;  // 7 March 2026, a Saturday
  now.tm_mon = 2;
  now.tm_mday = 7;
  now.tm_hour = 15;
  now.tm_min = 4;
  now.tm_sec = 5;
  now.tm_wday = 6;
  now.tm_yday = 65;
  return now;
}

void expect_same(const std::string& text, const Json& given, const Json& wanted) {
  Json variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  for (const auto& [name, value] : given.items()) variables[name] = value;
  const auto parsed = ChatTemplate::parse(text);
  const auto found =
      parsed ? parsed->render(variables, golden_time()) : tl::unexpected(parsed.error());
  if (wanted.contains("error")) {
    EXPECT_FALSE(found) << "rendered, expected " << wanted["error"];
  } else if (found && wanted.contains("sha256")) {
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(*found))), wanted["sha256"].get<std::string>())
        << *found;
  } else if (found) {
    EXPECT_EQ(*found, wanted["text"].get<std::string>());
  } else {
    ADD_FAILURE() << found.error().message;
  }
}

TEST(ChatGolden, RendersThePublishedTemplates) {
  const Json goldens =
      value_or_throw(parse_json(golden_bytes("chat_goldens.json"), "chat_goldens.json"));
  for (const auto& [name, conversations] : goldens["templates"].items()) {
    const auto path = test_asset("templates/" + name + ".jinja");
    if (!path) GTEST_SKIP() << kNoAssets;
    for (const auto& [key, wanted] : conversations.items()) {
      SCOPED_TRACE(name + ", " + key);
      expect_same(read_bytes(*path), goldens["conversations"][key], wanted);
    }
  }
}

TEST(ChatGolden, RendersSnippets) {
  const Json goldens =
      value_or_throw(parse_json(golden_bytes("chat_goldens.json"), "chat_goldens.json"));
  const Json variables = Json::parse(
      R"({"x": 7, "messages": [{"role": "user", "content": "u"}],
          "d": {"b": 1, "a": [1, 2.5, null, true, "ü\"'"]}, "s": " Ab c-d éß "})");
  ASSERT_GT(goldens["snippets"].size(), 40u);
  for (const Json& snippet : goldens["snippets"]) {
    const auto text = snippet["template"].get<std::string>();
    SCOPED_TRACE(text);
    expect_same(text, variables, snippet);
  }
}

}  // namespace
}  // namespace spear::test
