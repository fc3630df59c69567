#include <gtest/gtest.h>

#include "spear/serve/http_message.h"

#include "serve/test_service.h"

namespace spear {
namespace {

using test::Reply;
using test::TestService;

TEST(Routes, ModelsCarryTheirCertificate) {
  TestService server;
  const Json list = server.ask("GET", "/v1/models").json();
  EXPECT_EQ(list["object"], "list");
  const Json& card = list["data"][0];
  EXPECT_EQ(card["id"], "tiny");
  EXPECT_EQ(card["max_model_len"], 256);
  EXPECT_EQ(card["certificate"]["perplexity"], 21.5);
  EXPECT_EQ(card["meta"]["n_vocab"], 257);
  EXPECT_EQ(server.ask("GET", "/v1/models/tiny").json(), card);
  EXPECT_EQ(server.ask("GET", "/v1/models/t%69ny?x=1").status, 200);
  for (const char* wrong : {"/v1/models/other", "/v1/models/tiny%00", "/v1/models/../tiny",
                            "/v1/models/%zz", "/v1/models/%2"})
    EXPECT_EQ(server.ask("GET", wrong).status, 404) << wrong;
}

TEST(Routes, TokenizeTakesBothForms) {
  TestService server;
  const Json vllm =
      server.post("/tokenize", R"({"prompt": "hé", "return_token_strs": true})").json();
  EXPECT_EQ(vllm["count"], 3);
  EXPECT_EQ(vllm["tokens"], Json({104, 195, 169}));
  EXPECT_EQ(vllm["token_strs"], Json({"h", "bytes:\\xc3", "bytes:\\xa9"}));
  EXPECT_EQ(vllm["max_model_len"], 256);
  const Json plain = server.post("/tokenize", R"({"content": "ab"})").json();
  EXPECT_EQ(plain, (Json{{"tokens", {97, 98}}}));
  const Json pieces = server.post("/tokenize", R"({"content": "a", "with_pieces": true})").json();
  EXPECT_EQ(pieces["tokens"][0], (Json{{"id", 97}, {"piece", "a"}}));
  const Json chat =
      server.post("/tokenize", R"({"messages": [{"role": "user", "content": "a"}]})").json();
  EXPECT_EQ(server.post("/detokenize", Json{{"tokens", chat["tokens"]}}.dump()).json()["prompt"],
            "user: a\n>");
}

TEST(Routes, TokenizerInfoHoldsTheEndToken) {
  TestService server;
  const Json info = server.ask("GET", "/tokenizer_info").json();
  EXPECT_EQ(info["eos_token"], "<end>");
  EXPECT_TRUE(info["bos_token"].is_null());
  EXPECT_EQ(info["chat_template"], test::kChatTemplate);
}

TEST(Routes, UnknownPathsAndMethodsAreSaidInJson) {
  TestService server;
  for (const char* path :
       {"/v1", "/page/", "/page/../service.cpp", "/page/index.html/x", "//v1/models", "/v1/models/",
        "/health%00", "/../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/v1/models/%00",
        "/v1/models/%zz", "/v1/embeddings", ""})
    EXPECT_EQ(server.ask("GET", path).status, 404) << path;
  const Reply wrong = server.ask("GET", "/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.header("Allow"), "POST");
  EXPECT_EQ(wrong.json()["error"]["code"], "method_not_allowed");
  EXPECT_EQ(server.ask("DELETE", "/v1/models").status, 405);
  EXPECT_EQ(server.ask("GET", "/v1/models", "", {}).status, 200);
}

TEST(Routes, OtherMediaTypesAreRefused) {
  TestService server;
  const std::string body = R"({"prompt": "say:hi|>"})";
  const auto status = [&](const char* name, const char* value) {
    return server.ask("POST", "/v1/completions", body, {{name, value}}).status;
  };
  EXPECT_EQ(status("Content-Type", "application/json; charset=utf-8"), 200);
  EXPECT_EQ(status("Content-Type", "text/plain"), 415);
  EXPECT_EQ(status("Content-Type", "multipart/form-data"), 415);
  EXPECT_EQ(status("Content-Encoding", "gzip"), 415);
}

TEST(Routes, KeysAreAskedForEverywhereButHealth) {
  test::TestServiceOptions options;
  options.service.keys = ApiKeys({"sesame", "other-key"});
  TestService server(std::move(options));
  const auto status = [&](const char* path, const std::string& authorization) {
    return server.ask("GET", path, "", {{"authorization", authorization}}).status;
  };
  EXPECT_EQ(status("/v1/models", "Bearer sesame"), 200);
  EXPECT_EQ(status("/v1/models", "bearer other-key"), 200);
  for (const char* wrong : {"", "sesame", "Bearer ", "Bearer sesam", "Bearer sesamee",
                            "Bearer sesamesesame", "Basic sesame", "Bearer Sesame"})
    EXPECT_EQ(status("/v1/models", wrong), 401) << wrong;
  for (const char* path : {"/metrics", "/version", "/tokenizer_info", "/openapi.json", "/nowhere"})
    EXPECT_EQ(status(path, "Bearer no"), 401) << path;
  EXPECT_EQ(status("/health", ""), 200);
  EXPECT_EQ(status("/ready", ""), 200);
  const Reply refused = server.ask("GET", "/v1/models");
  EXPECT_EQ(refused.json()["error"]["type"], "authentication_error");
  EXPECT_EQ(refused.header("WWW-Authenticate"), "Bearer");
}

TEST(Routes, LoadingAndDrainingAreSaid) {
  Service loading({});
  const auto status = [&](const char* method, const char* path) {
    HttpRequest request{.method = method, .target = path, .body = R"({"prompt": "a"})"};
    return loading.handle(request, [] {}).reply.status;
  };
  EXPECT_EQ(status("GET", "/health"), 200);
  EXPECT_EQ(status("GET", "/ready"), 503);
  EXPECT_EQ(status("GET", "/v1/models"), 503);
  EXPECT_EQ(status("POST", "/v1/completions"), 503);
  EXPECT_EQ(status("GET", "/metrics"), 200);

  TestService server;
  EXPECT_EQ(server.ask("GET", "/ready").status, 200);
  server.service.begin_drain();
  EXPECT_EQ(server.ask("GET", "/ready").status, 503);
  EXPECT_EQ(server.post("/v1/completions", R"({"prompt": "say:a|>"})").status, 200)
      << "whoever has not heard of it yet is still served";
  server.service.refuse_new();
  const Reply refused = server.post("/v1/completions", R"({"prompt": "say:a|>"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["error"]["code"], "draining");
  EXPECT_EQ(server.ask("GET", "/health").status, 200);
}

TEST(Routes, AFailedDeviceIsSaid) {
  TestService server;
  server.model.fails = true;
  const Reply failed = server.post("/v1/completions", R"({"prompt": "say:a|>"})");
  EXPECT_EQ(failed.status, 500);
  EXPECT_EQ(failed.json()["error"]["code"], "engine_error");
  EXPECT_EQ(server.ask("GET", "/health").status, 503);
  EXPECT_EQ(server.ask("GET", "/ready").status, 503);
  EXPECT_EQ(server.post("/v1/completions", R"({"prompt": "say:a|>"})").status, 503);
  EXPECT_EQ(server.ask("GET", "/metrics").status, 200);
}

TEST(Routes, CorsIsOffUnlessAskedFor) {
  const auto origin_header = [](TestService& server, const char* origin) {
    HttpRequest request{.method = "OPTIONS", .target = "/v1/models"};
    request.headers.emplace_back("Origin", origin);
    HttpReply reply = server.service.handle(request, [] {}).reply;
    EXPECT_EQ(reply.status, 204);
    server.service.finish_headers(request, reply);
    for (const auto& [name, value] : reply.headers)
      if (name == "Access-Control-Allow-Origin") return value;
    return std::string();
  };
  TestService closed;
  EXPECT_EQ(origin_header(closed, "https://a.example"), "");
  test::TestServiceOptions options;
  options.service.cors_origins = {"https://a.example"};
  TestService open(std::move(options));
  EXPECT_EQ(origin_header(open, "https://a.example"), "https://a.example");
  EXPECT_EQ(origin_header(open, "https://b.example"), "");
}

TEST(Routes, MetricsAreTextWithMonotoneCounters) {
  TestService server;
  server.post("/v1/completions", R"({"prompt": "say:abcdef|>", "temperature": 0})");
  HttpRequest request{.method = "PURGE", .target = "/x"};
  const std::string line = server.service.finished(request, 404, 0.5, {});
  EXPECT_NE(line.find("\"method\":\"other\""), std::string::npos) << "labels stay few: " << line;
  const std::string text = server.ask("GET", "/metrics").body;
  const auto has = [&](const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text.substr(0, 3000);
  };
  has("# TYPE vllm:time_to_first_token_seconds histogram\n");
  has("vllm:time_to_first_token_seconds_count{model_name=\"tiny\",engine=\"0\"} 1\n");
  has("vllm:inter_token_latency_seconds_count{model_name=\"tiny\",engine=\"0\"} 6\n");
  has("vllm:request_success_total{model_name=\"tiny\",engine=\"0\",finished_reason=\"stop\"} 1\n");
  has("vllm:generation_tokens_total{model_name=\"tiny\",engine=\"0\"} 7\n");
  has("vllm:num_requests_waiting{model_name=\"tiny\",engine=\"0\"} 0\n");
  // Pages that are kept for their prefix are free.
  has("vllm:kv_cache_usage_perc{model_name=\"tiny\",engine=\"0\"} 0\n");
  has("http_requests_total{handler=\"other\",method=\"other\",status=\"404\"} 1\n");
  // Every line is a comment or NAME{LABELS} VALUE, every family is named before its samples.
  size_t at = 0;
  std::string family;
  while (at < text.size()) {
    const size_t end = text.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    const std::string row = text.substr(at, end - at);
    at = end + 1;
    if (row.starts_with("# TYPE ")) family = row.substr(7, row.find(' ', 7) - 7);
    if (row.starts_with("#")) continue;
    EXPECT_TRUE(row.starts_with(family)) << row;
    const size_t space = row.rfind(' ');
    EXPECT_NO_THROW(std::stod(row.substr(space + 1))) << row;
  }
}

TEST(Routes, LogLinesHoldNoText) {
  TestService server;
  HttpRequest request{.method = "POST", .target = "/v1/completions?key=secret"};
  request.id = "abc";
  request.body = "a secret prompt";
  const std::string line = server.service.finished(
      request, 200, 0.25, {.prompt_tokens = 5, .cached_tokens = 1, .tokens = 7, .finish = "stop"});
  EXPECT_EQ(line.find("secret"), std::string::npos) << line;
  const Json json = value_or_throw(parse_json(line, "line"));
  EXPECT_EQ(json["request_id"], "abc");
  EXPECT_EQ(json["route"], "/v1/completions");
  EXPECT_EQ(json["tokens"], 7);
}

TEST(Routes, RequestIdsAreHarmless) {
  EXPECT_EQ(request_id("abc-123", 1), "abc-123");
  for (const std::string& wrong : {std::string("a\nb"), std::string("a b"), std::string("\"{}"),
                                   std::string(129, 'a'), std::string()})
    EXPECT_EQ(request_id(wrong, 1), "req-0000000000000001");
}

TEST(Routes, TheOpenApiDocumentNamesEveryRoute) {
  TestService server;
  const Json document = server.ask("GET", "/openapi.json").json();
  for (const auto& [path, item] : document["paths"].items())
    for (const auto& [method, operation] : item.items()) {
      if (method == "parameters") continue;
      const bool get = method == "get";
      const std::string target = path == "/v1/models/{model}" ? "/v1/models/tiny" : path;
      const int status = server.ask(get ? "GET" : "POST", target, get ? "" : "{}").status;
      EXPECT_TRUE(status == 200 || (!get && status == 400)) << method << " " << path << status;
      EXPECT_TRUE(operation["responses"].contains("200"));
    }
}

}  // namespace
}  // namespace spear
