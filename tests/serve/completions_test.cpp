#include <cmath>
#include <thread>

#include <gtest/gtest.h>

#include "serve/test_service.h"

namespace spear {
namespace {

using test::Reply;
using test::TestService;

std::string joined(const std::vector<Json>& events) {
  std::string text;
  for (const Json& event : events)
    for (const Json& choice : event["choices"]) text += choice["text"].get<std::string>();
  return text;
}

TEST(Completions, AnswerInTheForm) {
  TestService server;
  const Reply reply = server.post(
      "/v1/completions", R"({"model": "tiny", "prompt": "say:hello|>", "temperature": 0})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(json["model"], "tiny");
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["text"], "hello");
  EXPECT_EQ(choice["index"], 0);
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["stop_reason"].is_null());
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["prompt_tokens"], 11);
  EXPECT_EQ(json["usage"]["completion_tokens"], 6) << "the end token counts";
  EXPECT_EQ(json["usage"]["total_tokens"], 17);
}

TEST(Completions, StreamsTheSameTextWithOneUsageChunkWhenAsked) {
  TestService server;
  const std::string fields =
      R"("prompt": "say:#characters|>", "temperature": 0, "max_tokens": 40, "stream": true)";
  const std::vector<Json> plain = server.post("/v1/completions", "{" + fields + "}").events();
  EXPECT_EQ(joined(plain), test::canned_texts().at("#characters"));
  for (const Json& event : plain) {
    EXPECT_FALSE(event.contains("usage"));
    EXPECT_EQ(event["id"], plain[0]["id"]);
    EXPECT_EQ(event["created"], plain[0]["created"]);
  }
  EXPECT_EQ(plain.back()["choices"][0]["finish_reason"], "stop");
  const std::vector<Json> counted =
      server
          .post("/v1/completions", "{" + fields + R"(, "stream_options": {"include_usage": true}})")
          .events();
  for (size_t i = 0; i + 1 < counted.size(); ++i) EXPECT_TRUE(counted[i]["usage"].is_null());
  EXPECT_TRUE(counted.back()["choices"].empty());
  const Json whole =
      server
          .post("/v1/completions",
                R"({"prompt": "say:#characters|>", "temperature": 0, "max_tokens": 40})")
          .json();
  EXPECT_EQ(counted.back()["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
  EXPECT_EQ(joined(counted), whole["choices"][0]["text"]);
}

TEST(Completions, MaxTokensIsExact) {
  TestService server;
  const Json json =
      server.post("/v1/completions", R"({"prompt": "go on", "temperature": 0, "max_tokens": 9})")
          .json();
  EXPECT_EQ(json["choices"][0]["text"], "xxxxxxxxx");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 9);
}

TEST(Completions, StopsAcrossTokensAndLeaksNothing) {
  TestService server;
  for (const bool stream : {false, true}) {
    const std::string body =
        R"({"prompt": "say:one two three|>", "temperature": 0, "stop": ["two", "zzz"], "stream": )" +
        std::string(stream ? "true}" : "false}");
    const Reply reply = server.post("/v1/completions", body);
    const std::vector<Json> parts = stream ? reply.events() : std::vector<Json>{reply.json()};
    EXPECT_EQ(joined(parts), "one ");
    EXPECT_EQ(parts.back()["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(parts.back()["choices"][0]["stop_reason"], "two");
  }
}

TEST(Completions, EchoWithLogprobsScoresThePrompt) {
  TestService server;
  const Json json = server
                        .post("/v1/completions",
                              R"({"prompt": [[65, 66, 67]], "max_tokens": 1, "logprobs": 1,
                                  "echo": true, "temperature": 0})")
                        .json();
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["text"], "ABCx");
  const Json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json({"A", "B", "C", "x"}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 1, 2, 3}));
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  for (int i = 1; i < 4; ++i) {
    const double own = logprobs["token_logprobs"][i].get<double>();
    const Json& top = logprobs["top_logprobs"][i];
    EXPECT_LE(own, 0);
    EXPECT_TRUE(top.contains("x")) << "the likeliest token of this model";
    EXPECT_EQ(top[logprobs["tokens"][i].get<std::string>()].get<double>(), own);
  }
  const double last = logprobs["token_logprobs"][3].get<double>();
  EXPECT_EQ(logprobs["top_logprobs"][3]["x"].get<double>(), last);
  EXPECT_GT(last, -0.1);
}

TEST(Completions, EchoAloneWithoutAnyAnswer) {
  TestService server;
  const Json json = server
                        .post("/v1/completions",
                              R"({"prompt": "AB", "max_tokens": 0, "logprobs": 0, "echo": true})")
                        .json();
  EXPECT_EQ(json["choices"][0]["text"], "AB");
  EXPECT_EQ(json["choices"][0]["logprobs"]["tokens"], Json({"A", "B"}));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 0);
}

TEST(Completions, BatchesKeepTheirOrder) {
  TestService server;
  Json prompts = Json::array();
  for (int i = 0; i < 16; ++i) prompts.push_back("say:number " + std::to_string(i) + "|>");
  const Json body = {{"prompt", prompts}, {"temperature", 0}, {"n", 2}};
  const Json json = server.post("/v1/completions", body.dump()).json();
  ASSERT_EQ(json["choices"].size(), 32U);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["text"], "number " + std::to_string(i / 2));
  }
}

TEST(Completions, TokenIdsAreTheSameAsTheirText) {
  TestService server;
  const Json ids = server.post("/tokenize", R"({"prompt": "say:abc|>"})").json();
  EXPECT_EQ(ids["count"], 9);
  const Json body = {{"prompt", ids["tokens"]}, {"temperature", 0}};
  EXPECT_EQ(server.post("/v1/completions", body.dump()).json()["choices"][0]["text"], "abc");
}

TEST(Completions, SeedsRepeatAndBiasBans) {
  TestService server;
  const std::string body = R"({"prompt": "noise", "temperature": 5, "seed": -3, "max_tokens": 24})";
  const Json first = server.post("/v1/completions", body).json();
  const Json again = server.post("/v1/completions", body).json();
  EXPECT_EQ(first["choices"][0]["text"], again["choices"][0]["text"]);
  const Json banned = server
                          .post("/v1/completions",
                                R"({"prompt": "noise", "temperature": 0, "max_tokens": 4,
                                    "logit_bias": {"120": -100}})")
                          .json();
  EXPECT_EQ(banned["choices"][0]["text"].get<std::string>().find('x'), std::string::npos);
}

TEST(Completions, NullStandsForEveryOptionalField) {
  TestService server;
  Json body = {{"prompt", "say:fine|>"}};
  for (const char* name : {"model",
                           "max_tokens",
                           "n",
                           "temperature",
                           "top_p",
                           "top_k",
                           "min_p",
                           "stop",
                           "stop_token_ids",
                           "ignore_eos",
                           "min_tokens",
                           "logprobs",
                           "echo",
                           "logit_bias",
                           "seed",
                           "stream",
                           "stream_options",
                           "presence_penalty",
                           "frequency_penalty",
                           "repetition_penalty",
                           "suffix",
                           "best_of",
                           "user",
                           "response_format",
                           "prompt_logprobs",
                           "priority",
                           "cache_salt",
                           "truncate_prompt_tokens"})
    body[name] = nullptr;
  body["an_unknown_field"] = 5;
  const Reply reply = server.post("/v1/completions", body.dump());
  EXPECT_EQ(reply.status, 200) << reply.body;
}

TEST(Completions, RegularExpressionsAndChoicesBind) {
  TestService server;
  const Json digits = server
                          .post("/v1/completions",
                                R"({"prompt": "number", "temperature": 0, "max_tokens": 20,
                                    "structured_outputs": {"regex": "[0-9]{3}"}})")
                          .json();
  EXPECT_EQ(digits["choices"][0]["text"].get<std::string>().size(), 3U);
  EXPECT_EQ(digits["choices"][0]["finish_reason"], "stop");
  const Json choice = server
                          .post("/v1/completions",
                                R"({"prompt": "number", "temperature": 0, "max_tokens": 20,
                                    "structured_outputs": {"choice": ["yes", "no"]}})")
                          .json();
  const auto text = choice["choices"][0]["text"].get<std::string>();
  EXPECT_TRUE(text == "yes" || text == "no") << text;
}

TEST(Completions, TimesComeWhenAskedFor) {
  TestService server;
  const Json json =
      server.post("/v1/completions", R"({"prompt": "say:abc|>", "include_metrics": true})").json();
  EXPECT_GE(json["metrics"]["time_to_first_token_ms"].get<double>(), 0);
  EXPECT_GT(json["metrics"]["tokens_per_second"].get<double>(), 0);
}

TEST(Completions, ManyAtOnceGetTheirOwnAnswers) {
  TestService server;
  std::vector<std::thread> clients;
  std::atomic<int> right = 0;
  for (int c = 0; c < 8; ++c)
    clients.emplace_back([&server, &right, c] {
      for (int i = 0; i < 8; ++i) {
        const std::string text = "client " + std::to_string(c) + " asks " + std::to_string(i);
        const Json body = {{"prompt", "say:" + text + "|>"},
                           {"temperature", 0},
                           {"max_tokens", 40},
                           {"stream", i % 2 == 0}};
        const Reply reply = server.post("/v1/completions", body.dump());
        const std::string got = i % 2 == 0 ? joined(reply.events())
                                           : reply.json()["choices"][0]["text"].get<std::string>();
        right += got == text ? 1 : 0;
      }
    });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 64);
}

TEST(Completions, AFailingDeviceIsA500AndThen503) {
  TestService server;
  server.model.fails = true;
  const Reply reply = server.post("/v1/completions", R"({"prompt": "go"})");
  EXPECT_EQ(reply.status, 500);
  EXPECT_NE(reply.json()["error"]["message"].get<std::string>().find("scripted device"),
            std::string::npos);
  EXPECT_EQ(server.post("/v1/completions", R"({"prompt": "go"})").status, 503);
  EXPECT_EQ(server.ask("GET", "/health").status, 503);
  EXPECT_EQ(server.ask("GET", "/ready").status, 503);
}

TEST(Completions, AFullQueueIsA429WithATime) {
  test::TestServiceOptions options;
  options.engine.max_running = 1;
  options.engine.max_waiting = 1;
  options.step = std::chrono::milliseconds(2);
  TestService server(std::move(options));
  std::vector<std::thread> clients;
  std::atomic<int> served = 0;
  std::atomic<int> refused = 0;
  for (int c = 0; c < 12; ++c)
    clients.emplace_back([&] {
      const Reply reply = server.post("/v1/completions", R"({"prompt": "go", "max_tokens": 30})");
      if (reply.status == 200) ++served;
      if (reply.status != 429) return;
      ++refused;
      EXPECT_GE(std::stod(reply.header("Retry-After")), 1);
      EXPECT_EQ(reply.json()["error"]["type"], "rate_limit_error");
    });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served + refused, 12);
  EXPECT_GT(served, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace spear
