// Bodies that a hostile or careless client sends: each gets its status and a sentence that names
// the field, and the answer of somebody else beside them is not touched.
#include <gtest/gtest.h>

#include "serve/test_service.h"

namespace spear {
namespace {

using test::Reply;
using test::TestService;

struct BadBody {
  const char* name;
  std::string body;
  const char* field;  // "param" of the error; "": null
  int status = 400;
};

void expect_refused(TestService& server, const std::string& target, const BadBody& bad) {
  const Reply reply = server.post(target, bad.body);
  ASSERT_EQ(reply.status, bad.status) << bad.name << ": " << reply.body.substr(0, 500);
  const Json error = reply.json()["error"];
  EXPECT_FALSE(error["message"].get<std::string>().empty());
  EXPECT_LT(error["message"].get<std::string>().size(), 600U) << bad.name;
  EXPECT_TRUE(error["code"].is_string()) << bad.name;
  const std::string param = error["param"].is_null() ? "" : error["param"].get<std::string>();
  EXPECT_EQ(param, bad.field) << bad.name << ": " << reply.body;
}

std::string with(const std::string& field) {
  return R"({"prompt": "say:hi|>", )" + field + "}";
}
std::string chat_with(const std::string& field) {
  return R"({"messages": [{"role": "user", "content": "hi"}], )" + field + "}";
}
std::string repeated(const std::string& piece, size_t times) {
  std::string text;
  text.reserve(piece.size() * times);
  for (size_t i = 0; i < times; ++i) text += piece;
  return text;
}
// [piece, piece, …]
std::string list_of(const std::string& piece, size_t times) {
  return "[" + repeated(piece + ",", times - 1) + piece + "]";
}

// "0": 1, "1": 1, … as far as the largest body allows.
std::string many_keys(size_t count) {
  std::string text = "\"0\": 1";
  constexpr size_t kRoom = size_t{8} << 20;
  for (size_t i = 1; i < count && text.size() < kRoom; ++i)
    text += ",\"" + std::to_string(i) + "\": 1";
  return text;
}

const std::vector<BadBody>& bad_completions() {
  static const std::vector<BadBody> list = {
      {"empty body", "", ""},
      {"array", "[]", ""},
      {"string", "\"prompt\"", ""},
      {"number", "5", ""},
      {"null", "null", ""},
      {"cut", R"({"prompt": "a)", ""},
      {"trailing bytes", R"({"prompt": "a"} {})", ""},
      {"invalid UTF-8", "{\"prompt\": \"\xff\xfe\"}", ""},
      {"lone surrogate", R"({"prompt": "\ud800"})", ""},
      {"deep", repeated("[", 100000), ""},
      {"deep and whole", "{\"prompt\": " + repeated("[", 70) + repeated("]", 70) + "}", ""},
      {"twice the same key", R"({"prompt": "a", "prompt": "b"})", ""},
      {"1e999", with(R"("temperature": 1e999)"), ""},
      {"NaN", with(R"("temperature": NaN)"), ""},
      {"no prompt", R"({"max_tokens": 3})", "prompt"},
      {"empty prompt", R"({"prompt": ""})", "prompt"},
      {"empty list", R"({"prompt": []})", "prompt"},
      {"empty ids", R"({"prompt": [[]]})", "prompt"},
      {"object prompt", R"({"prompt": {}})", "prompt"},
      {"mixed prompt", R"({"prompt": ["a", 5]})", "prompt"},
      {"mixed ids", R"({"prompt": [5, "a"]})", "prompt"},
      {"boolean ids", R"({"prompt": [true]})", "prompt"},
      {"nested too deep", R"({"prompt": [[[5]]]})", "prompt"},
      {"id -1", R"({"prompt": [-1]})", "prompt"},
      {"id of no token", R"({"prompt": [257]})", "prompt"},
      {"id 2^64", R"({"prompt": [18446744073709551616]})", "prompt"},
      {"id 1.5", R"({"prompt": [1.5]})", "prompt"},
      {"10k prompts", R"({"prompt": )" + list_of("\"a\"", 10000) + "}", "prompt"},
      {"a prompt too long for any context", R"({"prompt": ")" + repeated("a", 6000000) + "\"}",
       "prompt"},
      {"a prompt over the context", R"({"prompt": ")" + repeated("a", 256) + "\"}", "max_tokens"},
      {"prompt and answer over the context", with(R"("max_tokens": 250)"), "max_tokens"},
      {"max_tokens -1", with(R"("max_tokens": -1)"), "max_tokens"},
      {"max_tokens 2^31", with(R"("max_tokens": 2147483648)"), "max_tokens"},
      {"max_tokens 2^63", with(R"("max_tokens": 9223372036854775808)"), "max_tokens"},
      {"max_tokens text", with(R"("max_tokens": "5")"), "max_tokens"},
      {"n 0", with(R"("n": 0)"), "n"},
      {"n 1e6", with(R"("n": 1000000)"), "n"},
      {"n 2^40", with(R"("n": 1099511627776)"), "n"},
      {"best_of below n", with(R"("n": 3, "best_of": 2)"), "best_of"},
      {"best_of in a stream", with(R"("best_of": 2, "stream": true)"), "best_of"},
      {"temperature -1", with(R"("temperature": -1)"), "temperature"},
      {"temperature 1e308", with(R"("temperature": 1e308)"), "temperature"},
      {"temperature text", with(R"("temperature": "hot")"), "temperature"},
      {"top_p 0", with(R"("top_p": 0)"), "top_p"},
      {"top_p 1.1", with(R"("top_p": 1.1)"), "top_p"},
      {"top_k -2", with(R"("top_k": -2)"), "top_k"},
      {"min_p -0.1", with(R"("min_p": -0.1)"), "min_p"},
      {"presence_penalty 2.5", with(R"("presence_penalty": 2.5)"), "presence_penalty"},
      {"repetition_penalty 0", with(R"("repetition_penalty": 0)"), "repetition_penalty"},
      {"seed 1.5", with(R"("seed": 1.5)"), "seed"},
      {"seed 2^64", with(R"("seed": 18446744073709551616)"), "seed"},
      {"stop number", with(R"("stop": 5)"), "stop"},
      {"stop list of numbers", with(R"("stop": [5])"), "stop"},
      {"empty stop", with(R"("stop": "")"), "stop"},
      {"10k stops", with(R"("stop": )" + list_of("\"a\"", 10000)), "stop"},
      {"long stop", with(R"("stop": ")" + repeated("a", 257) + "\""), "stop"},
      {"stop ids", with(R"("stop_token_ids": [257])"), "stop_token_ids"},
      {"stop ids -1", with(R"("stop_token_ids": [-1])"), "stop_token_ids"},
      {"logprobs -1", with(R"("logprobs": -1)"), "logprobs"},
      {"logprobs 1e9", with(R"("logprobs": 1000000000)"), "logprobs"},
      {"prompt_logprobs in a stream", with(R"("prompt_logprobs": 1, "stream": true)"),
       "prompt_logprobs"},
      {"logit_bias list", with(R"("logit_bias": [])"), "logit_bias"},
      {"1M biases", with("\"logit_bias\": {" + many_keys(1000000) + "}"), ""},
      {"4000 biases", with("\"logit_bias\": {" + many_keys(4000) + "}"), "logit_bias"},
      {"logit_bias key", with(R"("logit_bias": {"x": 1})"), "logit_bias"},
      {"logit_bias key 1x", with(R"("logit_bias": {"1x": 1})"), "logit_bias"},
      {"logit_bias key over int", with(R"("logit_bias": {"99999999999": 1})"), "logit_bias"},
      {"logit_bias id", with(R"("logit_bias": {"257": 1})"), "logit_bias"},
      {"logit_bias id -1", with(R"("logit_bias": {"-1": 1})"), "logit_bias"},
      {"logit_bias value", with(R"("logit_bias": {"1": "a"})"), "logit_bias"},
      {"logit_bias 200", with(R"("logit_bias": {"1": 200})"), "logit_bias"},
      {"stream text", with(R"("stream": "yes")"), "stream"},
      {"stream_options alone", with(R"("stream_options": {"include_usage": true})"),
       "stream_options"},
      {"stream_options list", with(R"("stream": true, "stream_options": [])"), "stream_options"},
      {"suffix", with(R"("suffix": "end")"), "suffix"},
      {"echo text", with(R"("echo": "true")"), "echo"},
      {"min_tokens over max_tokens", with(R"("min_tokens": 20, "max_tokens": 10)"), "min_tokens"},
      {"priority text", with(R"("priority": "high")"), "priority"},
      {"truncate 0", with(R"("truncate_prompt_tokens": 0)"), "truncate_prompt_tokens"},
      {"another model", with(R"("model": "gpt-4")"), "model", 404},
      {"model number", with(R"("model": 4)"), "model"},
      {"beam search", with(R"("use_beam_search": true)"), "use_beam_search"},
      {"format of no kind", with(R"("response_format": {"type": "xml"})"), "response_format.type"},
      {"format without schema", with(R"("response_format": {"type": "json_schema"})"),
       "response_format.json_schema.schema"},
      {"schema list",
       with(R"("response_format": {"type": "json_schema", "json_schema": {"schema": []}})"),
       "response_format.json_schema.schema"},
      {"schema keyword",
       with(R"("structured_outputs": {"json": {"type": "object", "patternProperties": {}}})"),
       "structured_outputs.json"},
      {"schema of itself", with(R"("structured_outputs": {"json": {"$ref": "#"}})"),
       "structured_outputs.json"},
      {"schema over 64 KiB",
       with(R"("structured_outputs": {"json": {"enum": )" + list_of("\"aaaaaaaa\"", 7000) + "}}"),
       "structured_outputs.json"},
      {"schema text nested", with(R"("guided_json": ")" + repeated("[", 60000) + "\""),
       "guided_json"},
      {"regex wrong", with(R"("structured_outputs": {"regex": "(a"})"), "structured_outputs.regex"},
      {"regex exponential", with(R"j("structured_outputs": {"regex": "(((a{999}){999}){999})"})j"),
       "structured_outputs.regex"},
      {"regex long", with(R"("structured_outputs": {"regex": ")" + repeated("a", 70000) + "\"}"),
       "structured_outputs.regex"},
      {"choice empty", with(R"("structured_outputs": {"choice": []})"),
       "structured_outputs.choice"},
      {"grammar", with(R"("structured_outputs": {"grammar": "root ::= a"})"), "structured_outputs"},
      {"two formats", with(R"("guided_regex": "a", "guided_choice": ["a"])"), "response_format"},
  };
  return list;
}

const std::vector<BadBody>& bad_chats() {
  static const std::vector<BadBody> list = {
      {"no messages", R"({"model": "tiny"})", "messages"},
      {"no message", R"({"messages": []})", "messages"},
      {"messages object", R"({"messages": {}})", "messages"},
      {"message string", R"({"messages": ["hi"]})", "messages[0]"},
      {"no role", R"({"messages": [{"content": "hi"}]})", "messages[0].role"},
      {"unknown role", R"({"messages": [{"role": "wizard", "content": "hi"}]})",
       "messages[0].role"},
      {"role number", R"({"messages": [{"role": 5, "content": "hi"}]})", "messages[0].role"},
      {"no content", R"({"messages": [{"role": "user"}]})", "messages[0].content"},
      {"content number", R"({"messages": [{"role": "user", "content": 5}]})",
       "messages[0].content"},
      {"an image", R"({"messages": [{"role": "user", "content": [{"type": "image_url",
         "image_url": {"url": "data:,"}}]}]})",
       "messages[0].content"},
      {"10k messages",
       R"({"messages": )" + list_of(R"({"role": "user", "content": "a"})", 10000) + "}",
       "messages"},
      {"arguments no JSON", R"({"messages": [{"role": "assistant", "tool_calls": [{"function":
         {"name": "f", "arguments": "{"}}]}]})",
       "messages[0].tool_calls"},
      {"calls without a name",
       R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]})",
       "messages[0].tool_calls"},
      {"tools object", chat_with(R"("tools": {})"), "tools"},
      {"tool string", chat_with(R"("tools": ["add"])"), "tools[0]"},
      {"tool without function", chat_with(R"("tools": [{"type": "function"}])"),
       "tools[0].function"},
      {"tool name number", chat_with(R"("tools": [{"type": "function", "function": {"name": 5}}])"),
       "tools[0].function.name"},
      {"tool parameters wrong", chat_with(R"("tools": [{"type": "function", "function":
         {"name": "f", "parameters": "no"}}])"),
       "tools[0].function.parameters"},
      {"200 tools",
       chat_with(R"("tools": )" +
                 list_of(R"({"type": "function", "function": {"name": "f"}})", 200)),
       "tools"},
      {"choice without tools", chat_with(R"("tool_choice": "required")"), "tool_choice"},
      {"choice of no tool", chat_with(R"("tools": [{"type": "function", "function": {"name":
         "f"}}], "tool_choice": {"type": "function", "function": {"name": "g"}})"),
       "tool_choice"},
      {"choice number", chat_with(R"("tools": [{"type": "function", "function": {"name":
         "f"}}], "tool_choice": 5)"),
       "tool_choice"},
      {"old functions", chat_with(R"("functions": [])"), "functions"},
      {"top_logprobs alone", chat_with(R"("top_logprobs": 2)"), "top_logprobs"},
      {"top_logprobs 1e9", chat_with(R"("logprobs": true, "top_logprobs": 1000000000)"),
       "logprobs"},
      {"logprobs number", chat_with(R"("logprobs": 2)"), "logprobs"},
      {"a template of the client's", chat_with(R"("chat_template": "{% for %}")"), "chat_template"},
      {"variables of no object", chat_with(R"("chat_template_kwargs": 5)"), "chat_template_kwargs"},
      {"audio", chat_with(R"("modalities": ["audio"])"), "modalities"},
  };
  return list;
}

TEST(BadBodies, OfCompletionsAreRefusedByField) {
  TestService server;
  test::Neighbour beside(server);
  for (const BadBody& bad : bad_completions()) expect_refused(server, "/v1/completions", bad);
  EXPECT_EQ(beside.wrong(), 0);
  EXPECT_EQ(server.post("/v1/completions", R"({"prompt": "say:alive|>"})").status, 200);
}

TEST(BadBodies, OfChatsAreRefusedByField) {
  TestService server;
  test::Neighbour beside(server);
  for (const BadBody& bad : bad_chats()) expect_refused(server, "/v1/chat/completions", bad);
  EXPECT_EQ(beside.wrong(), 0);
  EXPECT_EQ(server
                .post("/v1/chat/completions",
                      R"({"messages": [{"role": "user", "content": "say:alive|"}]})")
                .status,
            200);
}

TEST(BadBodies, OfTokenizingAreRefusedByField) {
  TestService server;
  expect_refused(server, "/tokenize", {"nothing", "{}", "prompt"});
  expect_refused(server, "/tokenize", {"number", R"({"prompt": 5})", "prompt"});
  expect_refused(server, "/detokenize", {"nothing", "{}", "tokens"});
  expect_refused(server, "/detokenize", {"out of range", R"({"tokens": [999]})", "tokens"});
  expect_refused(server, "/detokenize", {"text", R"({"tokens": "abc"})", "tokens"});
}

TEST(BadBodies, BothNumbersOfAFullContextAreSaid) {
  TestService server;
  const Json error = server.post("/v1/completions", with(R"("max_tokens": 250)")).json()["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  const auto message = error["message"].get<std::string>();
  EXPECT_NE(message.find("256"), std::string::npos) << message;
  EXPECT_NE(message.find("250"), std::string::npos) << message;
}

// What a model's own template may do to the server: nothing but fail at this request.
TEST(BadBodies, HostileChatTemplatesFailTheirRequestsOnly) {
  for (const char* hostile :
       {"{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(30000) %}{% for j in range(30000) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}", "{{ 'a' * 1000000000 }}",
        "{{ raise_exception('no such conversation') }}"}) {
    test::TestServiceOptions options;
    options.chat_template = hostile;
    TestService server(std::move(options));
    test::Neighbour beside(server);
    const auto begun = std::chrono::steady_clock::now();
    const Reply reply =
        server.post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "hi"}]})");
    EXPECT_GE(reply.status, 400) << hostile << ": " << reply.body.substr(0, 300);
    EXPECT_LT(reply.body.size(), 1000U) << hostile;
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20)) << hostile;
    EXPECT_EQ(beside.wrong(), 0) << hostile;
  }
}

TEST(BadBodies, StrangeButRightOnesAreAnswered) {
  TestService server;
  for (const std::string& body :
       {std::string(R"({"prompt": "nul \u0000 inside"})"), with(R"("max_tokens": 3.0)"),
        with(R"("temperature": -0.0)"), with(R"("n": 2, "temperature": 0)"),
        R"({"prompt": ")" + repeated("a", 200) + "\"}"}) {
    const Reply reply = server.post("/v1/completions", body);
    EXPECT_EQ(reply.status, 200) << body << ": " << reply.body;
  }
}

}  // namespace
}  // namespace spear
