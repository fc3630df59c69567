// The server with real sockets on loopback, over the talking model.
#include <atomic>
#include <chrono>
#include <thread>

#include "serve/http_fixture.h"

namespace spear {
namespace {

using test::HttpAnswer;
using test::HttpClient;
using test::kEndless;
using test::TestServiceOptions;

class Http : public test::HttpFixture {};

TEST_F(Http, KeepsConnectionsAlive) {
  start();
  HttpClient client(port());
  for (int i = 0; i < 3; ++i) {
    const HttpAnswer answer =
        client.request("POST", "/v1/completions", R"({"prompt": "say:hello|>", "temperature": 0})");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("connection"), "keep-alive");
    EXPECT_NE(answer.body.find("\"hello\""), std::string::npos);
  }
  EXPECT_EQ(server_->connections(), 1U);
}

TEST_F(Http, StreamsInChunksWithTheHeadersOfEventStreams) {
  start();
  HttpClient client(port());
  const HttpAnswer answer =
      client.request("POST", "/v1/completions", R"({"prompt": "say:#characters|>", "temperature": 0,
                                     "max_tokens": 50, "stream": true})");
  EXPECT_EQ(answer.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(answer.header("cache-control"), "no-cache");
  EXPECT_EQ(answer.header("x-accel-buffering"), "no");
  std::string text;
  for (const Json& event : (test::Reply{200, answer.body}).events())
    text += event["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, test::canned_texts().at("#characters"));
  EXPECT_EQ(client.request("GET", "/health").status, 200) << "the connection goes on";
}

TEST_F(Http, OldClientsGetAStreamWithoutChunks) {
  start();
  HttpClient client(port());
  const std::string body = R"({"prompt": "say:hello|>", "stream": true})";
  client.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  const HttpAnswer answer = client.receive();
  EXPECT_EQ(answer.header("transfer-encoding"), "");
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_FALSE((test::Reply{200, answer.body}).events().empty());
}

TEST_F(Http, TakesChunkedBodiesAndExpectations) {
  start();
  HttpClient client(port());
  client.send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "9\r\n{\"prompt\"\r\n7\r\n: \"ab\"}\r\n0\r\n\r\n");
  EXPECT_EQ(client.receive().status, 200);
  client.send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.receive().status, 100);
  client.send("{\"prompt\": \"abc\"}");
  EXPECT_EQ(client.receive().status, 200);
}

TEST_F(Http, AnswersPipelinedRequestsInTurn) {
  start();
  HttpClient client(port());
  client.send(
      "GET /version HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
      "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.receive().body.find("version"), std::string::npos);
  EXPECT_NE(client.receive().body.find("\"list\""), std::string::npos);
  EXPECT_EQ(client.receive().status, 404);
}

TEST_F(Http, HeadRequestsGetNoBody) {
  start();
  HttpClient client(port());
  EXPECT_EQ(client.request("HEAD", "/health").status, 200);
  EXPECT_EQ(client.request("GET", "/health").body, R"({"status":"ok"})");
}

TEST_F(Http, EchoesRequestIdsAndLogsThem) {
  start();
  HttpClient client(port());
  EXPECT_EQ(client.request("GET", "/version", "", "X-Request-Id: abc.7\r\n").header("x-request-id"),
            "abc.7");
  EXPECT_TRUE(client.request("GET", "/version", "", "X-Request-Id: \"a b\"\r\n")
                  .header("x-request-id")
                  .starts_with("req-"));
  EXPECT_TRUE(soon([&] { return logged().find("\"request_id\":\"abc.7\"") != std::string::npos; }));
}

TEST_F(Http, SilenceIsFilledWithComments) {
  HttpOptions http;
  http.ping_seconds = 0.1;
  TestServiceOptions options;
  options.step = std::chrono::milliseconds(400);
  start(std::move(options), http);
  HttpClient client(port());
  const HttpAnswer answer = client.request(
      "POST", "/v1/completions", R"({"prompt": "say:a|>", "temperature": 0, "stream": true})");
  EXPECT_NE(answer.body.find(": ping\n\n"), std::string::npos);
  EXPECT_FALSE((test::Reply{200, answer.body}).events().empty());
}

TEST_F(Http, AnswersThatTakeTooLongAreEnded) {
  HttpOptions http;
  http.request_seconds = 0.5;
  start_slow(http);
  HttpClient client(port());
  const HttpAnswer answer =
      client.request("POST", "/v1/completions", R"({"prompt": "on", "max_tokens": 4000})");
  EXPECT_EQ(answer.status, 408);
  EXPECT_TRUE(soon([&] { return engine().stats().running == 0; }));
}

TEST_F(Http, MoreConnectionsThanAllowedAreRefused) {
  HttpOptions http;
  http.max_connections = 2;
  start({}, http);
  HttpClient first(port());
  HttpClient second(port());
  EXPECT_EQ(first.request("GET", "/health").status, 200);
  EXPECT_EQ(second.request("GET", "/health").status, 200);
  HttpClient third(port());
  EXPECT_EQ(third.receive().status, 503);
}

TEST_F(Http, ManyIdleConnectionsDisturbNobody) {
  start();
  std::vector<std::unique_ptr<HttpClient>> idle;
  for (int i = 0; i < 300; ++i) idle.push_back(std::make_unique<HttpClient>(port()));
  EXPECT_TRUE(soon([&] { return server_->connections() == 300; }));
  expect_alive();
}

TEST_F(Http, StreamsSideBySideKeepTheirOwnText) {
  start();
  std::vector<std::thread> clients;
  std::atomic<int> right = 0;
  for (int c = 0; c < 16; ++c)
    clients.emplace_back([&, c] {
      HttpClient client(port());
      for (int i = 0; i < 4; ++i) {
        const std::string text = "stream " + std::to_string(c) + "." + std::to_string(i);
        const HttpAnswer answer = client.request("POST", "/v1/completions",
                                                 Json{{"prompt", "say:" + text + "|>"},
                                                      {"temperature", 0},
                                                      {"max_tokens", 30},
                                                      {"stream", true}}
                                                     .dump());
        std::string got;
        for (const Json& event : (test::Reply{200, answer.body}).events())
          got += event["choices"][0]["text"].get<std::string>();
        right += got == text ? 1 : 0;
      }
    });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 64);
}

TEST_F(Http, DrainingFinishesWhatIsUnderWay) {
  start_slow();
  HttpClient running(port());
  const std::string body = R"({"prompt": "on", "max_tokens": 100, "stream": true})";
  running.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
               std::to_string(body.size()) + "\r\n\r\n" + body);
  running.read_until("data: ");
  service_->service.begin_drain();
  service_->service.refuse_new();
  HttpClient late(port());
  const HttpAnswer refused = late.request("POST", "/v1/completions", R"({"prompt": "a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("connection"), "close");
  EXPECT_TRUE(engine().drain(10));
  running.read_until("data: [DONE]\n\n");
  server_->stop(5);
  EXPECT_EQ(server_->connections(), 0U);
}

TEST_F(Http, WhatIsCutOffByTheEndHearsOfIt) {
  start_slow();
  HttpClient running(port());
  running.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
               std::to_string(std::string(kEndless).size()) + "\r\n\r\n" + kEndless);
  running.read_until("data: ");
  EXPECT_FALSE(engine().drain(0.05));
  const std::string rest = running.read_until("data: [DONE]\n\n");
  EXPECT_NE(rest.find("\"error\""), std::string::npos);
}

TEST_F(Http, ATakenPortIsSaid) {
  start();
  HttpOptions http;
  http.port = port();
  try {
    HttpServer second(service_->service, http);
    FAIL() << "two servers at one port";
  } catch (const Failure& failure) {
    EXPECT_NE(failure.error().message.find(std::to_string(port())), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
