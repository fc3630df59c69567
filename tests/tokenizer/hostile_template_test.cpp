// Number 59 of the design's hostile inputs: templates that loop, grow, recurse or reach out.
#include <chrono>

#include <gtest/gtest.h>

#include "spear/base/json.h"
#include "spear/tokenizer/chat_template.h"

namespace spear::test {
namespace {

void expect_stopped(std::string_view text, std::string_view reason) {
  const auto begin = std::chrono::steady_clock::now();
  const auto parsed = ChatTemplate::parse(text);
  const auto out =
      parsed ? parsed->render(Json::object(), std::tm{}) : tl::unexpected(parsed.error());
  const std::string_view shown = text.substr(0, 200);
  ASSERT_FALSE(out) << shown;
  EXPECT_NE(out.error().message.find(reason), std::string::npos)
      << shown << ": " << out.error().message;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << shown;
}

std::string repeated(std::string_view text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(HostileTemplate, StopsLoops) {
  expect_stopped("{% for i in range(1000000000) %}{% endfor %}", "more than 100000 numbers");
  expect_stopped("{% for i in range(-9223372036854775807, 9223372036854775807) %}{% endfor %}",
                 "more than 100000 numbers");
  expect_stopped("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                 "more steps");
  expect_stopped(repeated("{% for i in range(9) %}", 30) + "x" + repeated("{% endfor %}", 30),
                 "more steps");
}

TEST(HostileTemplate, StopsGrowth) {
  expect_stopped("{{ 'x' * 1000000000000 }}", "more than 16 MiB");
  expect_stopped("{{ 'xxxxxxxxxx' * 9223372036854775807 }}", "more than 16 MiB");
  expect_stopped(
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% "
      "endfor %}",
      "more than 16 MiB");
  expect_stopped(
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}",
      "more steps");
  expect_stopped(
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}"
      "{{ ns.l }}",
      "chat template");
  expect_stopped("{{ ('x' * 10000).replace('', 'y' * 10000) }}", "more than 16 MiB");
  expect_stopped("{{ range(99999) | join('x' * 1000) }}", "more than 16 MiB");
  expect_stopped("{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}", "chat template");
  expect_stopped("{{ ('\n' * 1000000) | indent(1000) }}", "more than 16 MiB");
}

TEST(HostileTemplate, StopsRecursion) {
  expect_stopped("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "macros call each other");
  expect_stopped("{{ " + std::string(100'000, '(') + "1 }}", "nested deeper");
  expect_stopped("{{ " + std::string(100'000, '[') + "1 }}", "nested deeper");
  expect_stopped("{{ " + repeated("not ", 100'000) + "1 }}", "nested deeper");
  expect_stopped("{{ " + repeated("- ", 100'000) + "1 }}", "nested deeper");
  expect_stopped("{{ 1" + repeated(" + 1", 50'000) + " }}", "more than 300 levels");
  expect_stopped("{{ x" + repeated(".x", 50'000) + " }}", "more than 300 levels");
  expect_stopped("{{ x" + repeated("|trim", 50'000) + " }}", "more than 300 levels");
  expect_stopped(repeated("{% if 1 %}", 10'000), "nested deeper");
  expect_stopped(std::string(2 << 20, 'x'), "at most");
  expect_stopped(repeated("{{1}}", 200'000), "too many parts");
}

TEST(HostileTemplate, StopsReachingOut) {
  for (const char* text : {"{{ ''.__class__ }}", "{{ ''['__class__'] }}", "{{ [].__len__() }}",
                           "{{ namespace(a=1).__init__ }}", "{{ raise_exception.__globals__ }}"}) {
    const auto parsed = ChatTemplate::parse(text);
    const auto out =
        parsed ? parsed->render(Json::object(), std::tm{}) : tl::unexpected(parsed.error());
    EXPECT_FALSE(out) << text;
  }
}

TEST(HostileTemplate, SurvivesValuesThatHoldThemselves) {
  const auto parsed =
      value_or_throw(ChatTemplate::parse("{% set ns = namespace() %}{% set ns.me = ns %}{% macro "
                                         "m() %}{{ ns.x }}{% endmacro %}{% set ns.m = m %}"
                                         "{{ ns.me.me.me.x }}{{ ns == ns.me }}"));
  EXPECT_EQ(value_or_throw(parsed.render(Json::object(), std::tm{})), "True");
}

TEST(HostileTemplate, RefusesDeepVariables) {
  Json deep = 1;
  for (int i = 0; i < 500; ++i) deep = Json::array({deep});
  const auto parsed = value_or_throw(ChatTemplate::parse("{{ x }}"));
  EXPECT_FALSE(parsed.render(Json{{"x", deep}}, std::tm{}));
  EXPECT_FALSE(parsed.render(Json::array(), std::tm{}));
}

}  // namespace
}  // namespace spear::test
