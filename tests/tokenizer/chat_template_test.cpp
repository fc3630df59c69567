#include "spear/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include "spear/base/json.h"

namespace spear::test {
namespace {

std::string render(std::string_view text, const Json& variables = Json::object()) {
  const auto parsed = ChatTemplate::parse(text);
  if (!parsed) return "refused: " + parsed.error().message;
  const auto out = parsed->render(variables, std::tm{});
  return out ? *out : "refused: " + out.error().message;
}

TEST(ChatTemplate, RendersAConversationWithItsPrompt) {
  const auto parsed =
      value_or_throw(ChatTemplate::parse("{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ "
                                         "m['content'] }}{{ eos_token }}{% endfor %}"
                                         "{% if add_generation_prompt %}<assistant>{% endif %}"));
  EXPECT_EQ(value_or_throw(parsed.render({{"system", "s"}, {"user", "u"}}, "^", "$")),
            "^<system>s$<user>u$<assistant>");
}

TEST(ChatTemplate, NamesWhatItDoesNotRun) {
  EXPECT_EQ(render("a\n{{ x | xyz }}"),
            "refused: chat template uses the filter \"xyz\" (line 2), which spear does not run");
  EXPECT_EQ(render("{% if x is prime %}{% endif %}"),
            "refused: chat template uses the test \"prime\" (line 1), which spear does not run");
  EXPECT_EQ(render("{% include 'x' %}"),
            "refused: chat template uses the block \"include\" (line 1), which spear does not run");
  EXPECT_EQ(render("{{ 'x'.encode() }}"),
            "refused: chat template uses the method \"encode\" of a string (line 1), which spear "
            "does not run");
  EXPECT_EQ(
      render("{{ cycler(1) }}"),
      "refused: chat template uses the function \"cycler\" (line 1), which spear does not run");
  EXPECT_EQ(render("{{ [1].append(2) }}"),
            "refused: chat template uses the method \"append\" of a list (line 1), which spear "
            "does not run");
  EXPECT_EQ(render("{{ {} | tojson(separators=1) }}"),
            "refused: chat template uses the argument \"separators\" of the filter tojson (line "
            "1), which spear "
            "does not run");
}

TEST(ChatTemplate, SaysWhereTheSyntaxBreaks) {
  for (const auto& [text, reason] :
       {std::pair{"{{ x", "a tag without its end"},
        std::pair{"{% if x %}", "before its {% endif %}"},
        std::pair{"{% endif %}", "ends no block"}, std::pair{"{{ }}", "where a value belongs"},
        std::pair{"{# x", "without its #}"}, std::pair{"{{ 'x }}", "a string without its end"},
        std::pair{"{% raw %}", "without its {% endraw %}"},
        std::pair{"{{ x ? }}", "does not belong into a tag"},
        std::pair{"{% for x %}{% endfor %}", "where 'in' belongs"},
        std::pair{"{% break %}", "outside of a loop"},
        std::pair{"{{ 99999999999999999999 }}", "is too large"},
        std::pair{"{{ (1 }}", "where ')' belongs"},
        std::pair{"{% set 1 = x %}", "where a name belongs"},
        std::pair{"{{ '\\ud800' }}", "no character"}}) {
    const std::string found = render(text);
    EXPECT_NE(found.find(reason), std::string::npos) << text << ": " << found;
    EXPECT_NE(found.find("line 1"), std::string::npos) << found;
  }
}

TEST(ChatTemplate, PassesOnWhatTheTemplateRaises) {
  EXPECT_EQ(render("{{ raise_exception('roles must alternate') }}"),
            "refused: the chat template refuses these messages: \"roles must alternate\"");
}

TEST(ChatTemplate, KeepsOneRenderingFromTheNext) {
  const auto parsed = value_or_throw(ChatTemplate::parse("{% set a = a ~ 'x' %}{{ a }}"));
  const Json variables = {{"a", ""}};
  EXPECT_EQ(value_or_throw(parsed.render(variables, std::tm{})), "x");
  EXPECT_EQ(value_or_throw(parsed.render(variables, std::tm{})), "x");
}

TEST(ChatTemplate, SafeTextIsOnlyPrinted) {
  EXPECT_EQ(render("{{ '<' | safe }}{{ ('<' | safe) ~ '>' }}"), "<<>");
  EXPECT_NE(render("{{ ('<' | safe) + '>' }}").find("on what safe returns"), std::string::npos);
}

}  // namespace
}  // namespace spear::test
