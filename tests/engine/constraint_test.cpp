#include "spear/engine/constraint.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>
#include <set>

#include <gtest/gtest.h>

#include "spear/base/json.h"
#include "spear/base/rng.h"
#include "spear/engine/engine.h"
#include "spear/engine/json_patterns.h"
#include "spear/engine/json_schema.h"
#include "spear/engine/regex.h"

#include "engine/byte_tokenizer.h"
#include "engine/collector.h"
#include "engine/scripted_model.h"

namespace spear {
namespace {

VocabularyPointer vocabulary() {
  static const auto trie = std::make_shared<const TokenTrie>(test::byte_tokenizer(
      {"ab", "abc", "true", "\": ", "\", \"", "[1", "12", "\xc3\xa9", "\xe2\x82", "{\"", "}}"}));
  return trie;
}

bool matches(ByteAutomaton& automaton, std::string_view text) {
  int32_t state = automaton.start();
  for (const char c : text) {
    state = automaton.next(state, static_cast<uint8_t>(c));
    if (state < 0) return false;
  }
  return automaton.accepts(state);
}

ByteAutomaton automaton_of(std::string_view regex) {
  return value_or_throw(ByteAutomaton::build(*value_or_throw(parse_regex(regex)).pattern));
}

TEST(Regex, AgreesWithTheStandardLibraryOnRandomTexts) {
  Rng rng(1);
  for (const char* pattern :
       {"a*", "(a|b)*c", "a{2,4}b?", "[a-c]+", "(ab|ba){1,3}", "a(b(c|a)*)?", "[^a]b", "a|",
        "(?:a|bc)+", "(a?b){2}", "\\x61[\\w]", "a{0}b", "(a*)*", "((a|b){0,2}c){2,}"}) {
    ByteAutomaton automaton = automaton_of(pattern);
    const std::regex reference(pattern);
    for (int i = 0; i < 2000; ++i) {
      std::string text;
      for (uint32_t n = rng.below(8); n > 0; --n) text += static_cast<char>('a' + rng.below(3));
      ASSERT_EQ(matches(automaton, text), std::regex_match(text, reference))
          << pattern << " on '" << text << "'";
    }
  }
}

TEST(Regex, SpeaksOfCharactersNotBytes) {
  ByteAutomaton any = automaton_of("^.$");
  for (const char* one : {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"})
    EXPECT_TRUE(matches(any, one));
  for (const char* other :
       {"", "\n", "ab", "\xc3", "\xff", "\xed\xa0\x80", "\xc0\x80", "\xf5\x80\x80\x80"})
    EXPECT_FALSE(matches(any, other));
  ByteAutomaton range = automaton_of("[\xc3\xa0-\xe2\x82\xac]");
  EXPECT_TRUE(matches(range, "\xc3\xa9"));
  EXPECT_TRUE(matches(range, "\xe0\xa0\x80"));
  EXPECT_FALSE(matches(range, "\xe2\x82\xad"));
  EXPECT_FALSE(matches(range, "\xc3\x9f"));
}

TEST(Regex, RefusesWhatItDoesNotKnowByName) {
  const auto refusal = [](std::string_view text) {
    const auto parsed = parse_regex(text);
    return parsed ? std::string() : parsed.error().message;
  };
  EXPECT_NE(refusal("(?=a)b").find("look-around"), std::string::npos);
  EXPECT_NE(refusal("(?<!a)b").find("look-around"), std::string::npos);
  EXPECT_NE(refusal("(a)\\1").find("escape"), std::string::npos);
  EXPECT_NE(refusal("\\bword").find("escape"), std::string::npos);
  EXPECT_NE(refusal("a^b").find("^ and $"), std::string::npos);
  EXPECT_NE(refusal("a)").find(")"), std::string::npos);
  EXPECT_NE(refusal("(a").find("missing"), std::string::npos);
  EXPECT_NE(refusal("[a").find("missing"), std::string::npos);
  EXPECT_NE(refusal("*a").find("repeat"), std::string::npos);
  EXPECT_NE(refusal("a{3,1}"), "");
  EXPECT_NE(refusal("a{9999}"), "");
  EXPECT_NE(refusal("[z-a]"), "");
  EXPECT_NE(refusal("\xff"), "");
  EXPECT_NE(refusal(std::string(20000, 'a')), "");
  EXPECT_NE(refusal(std::string(100, '(') + std::string(100, ')')), "");
  EXPECT_EQ(refusal("^\\d{3}-(?P<x>[a-z]*?)$"), "");
}

TEST(Constraint, RefusesWhatIsTooLargeOrImpossible) {
  const auto refusal = [](const auto& compiled) {
    return compiled ? std::string() : compiled.error().message;
  };
  EXPECT_NE(refusal(compile_regex("((a{100}){100}){100}", vocabulary())).find("too large"),
            std::string::npos);
  EXPECT_NE(refusal(compile_json_schema("false", vocabulary())).find("no text"), std::string::npos);
  EXPECT_NE(refusal(compile_choice({}, vocabulary())).find("choice"), std::string::npos);
}

TEST(Constraint, MasksExactlyTheTokensThatCanFollow) {
  const ConstraintPointer constraint = value_or_throw(compile_regex("(ab|true)+c?", vocabulary()));
  const Tokenizer& tokenizer = vocabulary()->tokenizer();
  ConstraintMatcher matcher(constraint);
  std::vector<float> row(static_cast<size_t>(tokenizer.vocab_size()) + 3, 0.0f);
  const auto allowed = [&](std::vector<int32_t> ends) {
    std::ranges::fill(row, 0.0f);
    EXPECT_TRUE(matcher.mask(row, ends));
    std::vector<int32_t> ids;
    for (size_t i = 0; i < row.size(); ++i)
      if (row[i] == 0) ids.push_back(static_cast<int32_t>(i));
    return ids;
  };
  const int32_t end = tokenizer.eos_id();
  const int32_t ab = tokenizer.id_of("ab"), abc = tokenizer.id_of("abc");
  const int32_t word = tokenizer.id_of("true");
  EXPECT_EQ(allowed({end}), (std::vector<int32_t>{'a', 't', ab, abc, word})) << "no end yet";
  matcher.accept('a');
  EXPECT_EQ(allowed({end}), (std::vector<int32_t>{'b'}));
  matcher.accept('b');
  EXPECT_EQ(allowed({end}), (std::vector<int32_t>{'a', 'c', 't', ab, abc, word, end}));
  EXPECT_FALSE(matcher.complete());
  matcher.accept(abc);
  EXPECT_TRUE(matcher.complete());
}

// A random model that is forced through a constraint, to the end.
std::vector<std::string> forced(ConstraintPointer constraint, int count, double temperature = 1) {
  const Tokenizer& tokenizer = vocabulary()->tokenizer();
  const auto script = [](std::span<const int32_t> prefix, std::span<float> logits) {
    test::ScriptedModel::noise(prefix, logits);
    logits['"'] += 3;  // so that strings end
    logits['}'] += 2;
    logits[']'] += 2;
  };
  test::ScriptedModel model(tokenizer.vocab_size(), 1024, 16, 512, script);
  EngineOptions options;
  options.max_running = 16;
  options.check_invariants = true;
  Engine engine(model, &tokenizer, options);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request = test::greedy({1, i % 200}, 500);
    request.sampling.temperature = temperature;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.constraint = constraint;
    requests.push_back(std::move(request));
  }
  std::vector<std::string> texts;
  for (const test::Outcome& outcome : test::ask_all(engine, std::move(requests))) {
    if (outcome.only().finish.reason == FinishReason::kLength) continue;
    EXPECT_EQ(outcome.only().finish.reason, FinishReason::kStop) << outcome.only().finish.message;
    texts.push_back(outcome.only().text);
  }
  return texts;
}

TEST(Constraint, ForcesWhateverTheModelWouldSay) {
  const std::string pattern = "[a-f]{2,5}-(true|[0-9]{3})";
  const std::regex reference(pattern);
  for (const std::string& text : forced(value_or_throw(compile_regex(pattern, vocabulary())), 200))
    EXPECT_TRUE(std::regex_match(text, reference)) << text;
  const std::vector<std::string> choices = {"yes", "no", "not sure"};
  std::set<std::string> seen;
  for (const std::string& text :
       forced(value_or_throw(compile_choice(choices, vocabulary())), 60, 5)) {
    EXPECT_NE(std::ranges::find(choices, text), choices.end()) << text;
    seen.insert(text);
  }
  EXPECT_EQ(seen.size(), 3U);
}

const char* const kPerson = R"({
  "type": "object", "title": "a person",
  "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 8},
    "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "mood": {"enum": ["good", "b\"ad", null, 3]},
    "tags": {"type": "array", "items": {"type": ["boolean", "null"]}, "maxItems": 3},
    "born": {"type": "string", "format": "date"},
    "home": {"$ref": "#/$defs/place"}
  },
  "required": ["name", "home"], "additionalProperties": false,
  "$defs": {"place": {"type": "object", "properties": {
    "zip": {"type": "string", "pattern": "^[0-9]{2}$"}, "in": {"$ref": "#/$defs/place"}},
    "required": ["zip"]}}
})";

void check_place(const Json& place) {
  EXPECT_TRUE(std::regex_match(place.at("zip").get<std::string>(), std::regex("[0-9]{2}")));
  if (place.contains("in")) check_place(place["in"]);
}

TEST(JsonSchema, EveryForcedTextIsAnInstance) {
  const auto texts = forced(value_or_throw(compile_json_schema(kPerson, vocabulary())), 1000);
  EXPECT_GT(texts.size(), 900U);
  for (const std::string& text : texts) {
    const Result<Json> json = parse_json(text, "answer");
    ASSERT_TRUE(json) << text;
    const std::set<std::string> known = {"name", "age", "mood", "tags", "born", "home"};
    for (const auto& [key, unused] : json->items()) EXPECT_TRUE(known.contains(key)) << text;
    const auto name = json->at("name").get<std::string>();
    EXPECT_FALSE(name.empty());
    if (json->contains("age")) {
      EXPECT_TRUE((*json)["age"].is_number_integer());
      EXPECT_GE((*json)["age"], 0);
      EXPECT_LE((*json)["age"], 120);
    }
    if (json->contains("tags")) {
      EXPECT_LE((*json)["tags"].size(), 3U);
    }
    if (json->contains("mood")) {
      EXPECT_NE(text.find((*json)["mood"].dump()), std::string::npos) << text;
    }
    check_place(json->at("home"));
  }
}

TEST(JsonSchema, AnyObjectParses) {
  const auto texts = forced(value_or_throw(compile_json_object(vocabulary())), 300);
  EXPECT_GT(texts.size(), 150U);
  for (const std::string& text : texts) {
    const Result<Json> json = parse_json(text, "answer");
    // Names may come twice, which the strict reader refuses; the grammar does not count them.
    if (!json) {
      EXPECT_NE(json.error().message.find("twice"), std::string::npos)
          << json.error().message << text;
    } else {
      EXPECT_TRUE(json->is_object());
    }
  }
}

TEST(JsonSchema, TakesInstancesAndNothingElse) {
  struct Case {
    const char* schema;
    std::vector<std::string> good, bad;
  };
  const Case cases[] = {
      {R"({"type": "integer"})", {"0", "-12", "7"}, {"01", "1.5", "-", "", "1e3"}},
      {R"({"type": "number"})", {"0.5", "-1e9", "12"}, {".5", "1.", "NaN"}},
      {R"({"type": "string"})",
       {R"("")", R"("a\n\u00e9")", "\"\xc3\xa9\""},
       {R"("a)", "\"\n\"", R"("\x")"}},
      {R"({"type": "string", "pattern": "b"})", {R"("abc")", R"("b")"}, {R"("a")"}},
      {R"({"type": "string", "pattern": "^\"\\\\$"})", {R"("\"\\")"}, {R"(""\")"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3})",
       {"[1, 2]", "[1,2,3]", "[ 1,\n  2 ]"},
       {"[]", "[1]", "[1,2,3,4]", "[1,]"}},
      {R"({"type": "array", "prefixItems": [{"type": "null"}, {"const": [1, {"a": true}]}]})",
       {R"([null, [1, {"a": true}]])"},
       {"[null]", "[null, [1], 2]"}},
      {R"({"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
           "required": ["b"]})",
       {R"({"b": null})", R"({"a": null, "b": null})", R"({"b":null,"c":null})"},
       {"{}", R"({"a": null})", R"({"b": null, "a": null})", R"({"b": null,})"}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}})",
       {"{}", R"({"a": null})", R"({"b": null})", R"({"a": null, "b": null})"},
       {R"({"c": null})", R"({,"a": null})"}},
      {R"({"type": "object", "additionalProperties": {"type": "boolean"}})",
       {"{}", R"({"x": true, "y": false})"},
       {R"({"x": 1})"}},
      {R"({"anyOf": [{"type": "null"}, {"type": "boolean"}]})", {"null", "true"}, {"1"}},
      {R"({"oneOf": [{"type": "null"}, {"type": "string"}]})", {"null", R"("x")"}, {"1"}},
      {R"({"type": "string", "format": "uuid"})",
       {R"("01234567-89ab-cdef-0123-456789abcdef")"},
       {R"("01234567")"}},
      {"true", {"null", "[1]", R"({"a": {"b": []}})"}, {"nul"}},
  };
  for (const Case& c : cases) {
    ByteAutomaton automaton =
        value_or_throw(ByteAutomaton::build(*value_or_throw(parse_json_schema(c.schema))));
    for (const std::string& text : c.good)
      EXPECT_TRUE(matches(automaton, text)) << c.schema << " " << text;
    for (const std::string& text : c.bad)
      EXPECT_FALSE(matches(automaton, text)) << c.schema << " " << text;
  }
}

TEST(JsonSchema, IntegersBetweenBoundsAreExactlyThose) {
  Rng rng(4);
  for (int round = 0; round < 60; ++round) {
    const auto draw = [&] { return static_cast<int64_t>(rng.below(2600)) - 1300; };
    std::optional<int64_t> low = draw(), high = draw();
    if (*low > *high) std::swap(low, high);
    if (round % 5 == 1) low.reset();
    if (round % 5 == 2) high.reset();
    ByteAutomaton automaton =
        value_or_throw(ByteAutomaton::build(*json::integer_between(low, high)));
    for (int64_t i = -1500; i <= 1500; ++i)
      ASSERT_EQ(matches(automaton, std::to_string(i)), (!low || i >= *low) && (!high || i <= *high))
          << i << " in " << low.value_or(-1) << " … " << high.value_or(-1);
  }
}

TEST(JsonSchema, RefusesKeywordsByNameAndPlace) {
  const auto refusal = [](std::string_view schema) {
    const auto parsed = parse_json_schema(schema);
    return parsed ? std::string() : parsed.error().message;
  };
  const auto names = [&](std::string_view schema, std::string_view word) {
    EXPECT_NE(refusal(schema).find(word), std::string::npos) << refusal(schema);
  };
  names(R"({"type": "string", "contentEncoding": "base64"})", "contentEncoding");
  names(R"({"properties": {"a": {"not": {}}}})", "$.properties.a");
  names(R"({"type": "object", "patternProperties": {}})", "patternProperties");
  names(R"({"type": "number", "minimum": 1})", "minimum");
  names(R"({"type": "integer", "multipleOf": 3})", "multipleOf");
  names(R"({"type": "integer", "minimum": 5, "maximum": 4})", "no integer");
  names(R"({"type": "string", "format": "email"})", "email");
  names(R"({"type": "colour"})", "colour");
  names(R"({"$ref": "#/$defs/none"})", "#/$defs/none");
  names(R"({"$ref": "http://elsewhere"})", "elsewhere");
  names(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf");
  names(R"({"allOf": [{}, {}]})", "allOf");
  names(R"({"required": ["a"], "type": "object"})", "required");
  names(R"({"type": "array", "minItems": -1})", "minItems");
  names(R"({"type": "array", "minItems": 4, "maxItems": 3})", "maxItems");
  names(R"({"type": "string", "pattern": "("})", "pattern");
  names("[1]", "an object");
  names("{", "schema");
  names(std::string(70000, ' ') + "{}", "65536");
}

TEST(JsonSchema, SchemasThatGrowAreStopped) {
  // Each definition refers twice to the next: two to the thirtieth without a bound.
  std::string schema = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < 30; ++i)
    schema +=
        "\"d" + std::to_string(i) + R"(": {"type": "array", "prefixItems": [{"$ref": "#/$defs/d)" +
        std::to_string(i + 1) + R"("}, {"$ref": "#/$defs/d)" + std::to_string(i + 1) + "\"}]},";
  schema += R"("d30": {"type": "null"}}})";
  EXPECT_FALSE(parse_json_schema(schema));
  const auto endless = parse_json_schema(R"({"$ref": "#"})");
  EXPECT_TRUE(!endless || !ByteAutomaton::build(**endless));
  // Many states: told as an error of the request, never an endless mask.
  const auto wide = compile_regex("(.*a.{12})|(.*b.{12})", vocabulary());
  if (wide) {
    std::vector<float> row(static_cast<size_t>(vocabulary()->tokenizer().vocab_size()));
    ConstraintMatcher matcher(*wide);
    Rng rng(2);
    bool troubled = false;
    for (int i = 0; i < 20000 && !troubled; ++i) {
      troubled = !matcher.mask(row, {});
      matcher.accept(rng.below(2) == 0 ? 'a' : 'b');
    }
    EXPECT_TRUE(troubled);
    EXPECT_NE(std::string(matcher.trouble()).find("too complex"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
