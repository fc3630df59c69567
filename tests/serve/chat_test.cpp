#include <gtest/gtest.h>

#include "serve/test_service.h"

namespace spear {
namespace {

using test::Reply;
using test::TestService;

const char* const kTools =
    R"("tools": [{"type": "function", "function": {"name": "add", "parameters":
       {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}])";

std::string chat(const std::string& content, const std::string& more = {}) {
  return R"({"messages": [{"role": "user", "content": ")" + content +
         R"("}], "temperature": 0, "max_tokens": 200)" + (more.empty() ? "" : ", " + more) + "}";
}

TEST(Chat, AnswersInTheForm) {
  TestService server;
  const Reply reply = server.post("/v1/chat/completions", chat("say:hello|"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("chatcmpl-"));
  EXPECT_EQ(json["choices"][0]["message"],
            (Json{{"role", "assistant"}, {"content", "hello"}, {"refusal", nullptr}}));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(json["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["total_tokens"].get<int>(),
            json["usage"]["prompt_tokens"].get<int>() + 6);
}

TEST(Chat, StreamsRoleContentFinishUsage) {
  TestService server;
  const std::vector<Json> events =
      server
          .post("/v1/chat/completions",
                chat("say:#characters|",
                     R"("stream": true, "stream_options": {"include_usage": true})"))
          .events();
  ASSERT_GE(events.size(), 4U);
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0]["delta"], (Json{{"role", "assistant"}, {"content", ""}}));
  std::string text;
  for (size_t i = 1; i + 2 < events.size(); ++i) {
    const Json& choice = events[i]["choices"][0];
    EXPECT_TRUE(choice["finish_reason"].is_null());
    text += choice["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(text, test::canned_texts().at("#characters"));
  const Json& last = events[events.size() - 2]["choices"][0];
  EXPECT_EQ(last["delta"], Json::object());
  EXPECT_EQ(last["finish_reason"], "stop");
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_GT(events.back()["usage"]["completion_tokens"].get<int>(), 0);
}

TEST(Chat, JoinsTextPartsAndTakesEveryRole) {
  TestService server;
  const Reply reply = server.post("/v1/chat/completions", R"({
    "messages": [{"role": "developer", "content": "be kind"},
                 {"role": "user", "content": [{"type": "text", "text": "say:a"},
                                              {"type": "text", "text": "b|"}]},
                 {"role": "assistant", "content": null, "tool_calls": [{"id": "1",
                   "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
                 {"role": "tool", "tool_call_id": "1", "content": "2"}],
    "temperature": 0, "max_completion_tokens": 9, "max_tokens": 1})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.json()["choices"][0]["message"]["content"], "ab") << "max_completion_tokens wins";
}

TEST(Chat, LogprobsAreSortedAndHoldTheToken) {
  TestService server;
  const Json json =
      server.post("/v1/chat/completions", chat("say:hi|", R"("logprobs": true, "top_logprobs": 3)"))
          .json();
  const Json& content = json["choices"][0]["logprobs"]["content"];
  ASSERT_GE(content.size(), 2U);
  EXPECT_EQ(content[0]["token"], "h");
  EXPECT_EQ(content[0]["bytes"], Json({104}));
  const Json& top = content[0]["top_logprobs"];
  ASSERT_EQ(top.size(), 3U);
  EXPECT_EQ(top[0]["token"], "h");
  EXPECT_GE(top[0]["logprob"].get<double>(), top[1]["logprob"].get<double>());
  EXPECT_GE(top[1]["logprob"].get<double>(), top[2]["logprob"].get<double>());
}

TEST(Chat, StreamedLogprobsAreTheSame) {
  TestService server;
  const Json whole = server
                         .post("/v1/chat/completions",
                               chat("say:#characters|", R"("logprobs": true, "top_logprobs": 1)"))
                         .json();
  Json streamed = Json::array();
  for (const Json& event :
       server
           .post("/v1/chat/completions",
                 chat("say:#characters|", R"("logprobs": true, "top_logprobs": 1, "stream": true)"))
           .events())
    for (const Json& entry : event["choices"][0]["logprobs"]["content"]) streamed.push_back(entry);
  EXPECT_EQ(streamed, whole["choices"][0]["logprobs"]["content"]);
}

TEST(Chat, SeveralChoicesHaveTheirOwnIndices) {
  TestService server;
  const Json json = server.post("/v1/chat/completions", chat("say:yes|", R"("n": 3)")).json();
  ASSERT_EQ(json["choices"].size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["message"]["content"], "yes");
  }
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
}

TEST(Chat, FindsToolCalls) {
  TestService server;
  const Json json =
      server.post("/v1/chat/completions", chat("say:#text-and-tools|", kTools)).json();
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "Well. ");
  const Json& calls = choice["message"]["tool_calls"];
  ASSERT_EQ(calls.size(), 2U);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(calls[i]["type"], "function");
    EXPECT_EQ(calls[i]["function"]["name"], "add");
    const auto arguments =
        value_or_throw(parse_json(calls[i]["function"]["arguments"].get<std::string>(), "a"));
    EXPECT_EQ(arguments, (Json{{"a", i + 1}}));
  }
  EXPECT_NE(calls[0]["id"], calls[1]["id"]);
}

TEST(Chat, StreamsToolCallsInPieces) {
  TestService server;
  const std::vector<Json> events =
      server
          .post("/v1/chat/completions",
                chat("say:#text-and-tools|", std::string(kTools) + R"(, "stream": true)"))
          .events();
  std::string content;
  std::map<int, std::string> names;
  std::map<int, std::string> arguments;
  for (const Json& event : events) {
    const Json& delta = event["choices"][0]["delta"];
    content += delta.value("content", "");
    if (!delta.contains("tool_calls")) continue;
    for (const Json& call : delta["tool_calls"]) {
      const int index = call["index"].get<int>();
      if (call["function"].contains("name")) {
        EXPECT_TRUE(call.contains("id"));
        names[index] += call["function"]["name"].get<std::string>();
      }
      arguments[index] += call["function"].value("arguments", "");
    }
  }
  EXPECT_EQ(content, "Well. ");
  EXPECT_EQ(names, (std::map<int, std::string>{{0, "add"}, {1, "add"}}));
  EXPECT_EQ(arguments, (std::map<int, std::string>{{0, R"({"a":1})"}, {1, R"({"a":2})"}}));
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "tool_calls");
}

TEST(Chat, OneCallWhereOnlyOneIsAllowedAndNoneOfUnknownTools) {
  TestService server;
  const Json one = server
                       .post("/v1/chat/completions",
                             chat("say:#text-and-tools|",
                                  std::string(kTools) + R"(, "parallel_tool_calls": false)"))
                       .json();
  EXPECT_EQ(one["choices"][0]["message"]["tool_calls"].size(), 1U);
  const Json unknown =
      server.post("/v1/chat/completions", chat("say:#unknown-tool|", kTools)).json();
  EXPECT_EQ(unknown["choices"][0]["message"]["content"], test::canned_texts().at("#unknown-tool"));
  EXPECT_EQ(unknown["choices"][0]["finish_reason"], "stop");
  const Json none =
      server
          .post("/v1/chat/completions",
                chat("say:#tool|", std::string(kTools) + R"(, "tool_choice": "none")"))
          .json();
  EXPECT_EQ(none["choices"][0]["message"]["content"], test::canned_texts().at("#tool"));
}

TEST(Chat, ARequiredToolIsCalledWhateverTheModelWants) {
  TestService server;
  const Reply reply = server.post(
      "/v1/chat/completions",
      chat("say:no|", std::string(kTools) + R"(, "tool_choice": "required", "logit_bias":
                       {"32": -100, "10": -100}, "max_completion_tokens": 100)"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json choice = reply.json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << reply.body;
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "add");
  EXPECT_TRUE(choice["message"]["content"].is_null());
}

TEST(Chat, JsonSchemasBind) {
  TestService server;
  const Reply reply =
      server.post("/v1/chat/completions",
                  chat("go", R"("logit_bias": {"32": -100, "10": -100}, "response_format":
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object",
          "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
          "additionalProperties": false}}})"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json answer = value_or_throw(
      parse_json(reply.json()["choices"][0]["message"]["content"].get<std::string>(), "answer"));
  EXPECT_TRUE(answer["ok"].is_boolean());
}

}  // namespace
}  // namespace spear
