// The server with real sockets on loopback, over the talking model.
#include <chrono>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "spear/serve/http_server.h"

#include "serve/http_client.h"
#include "serve/test_service.h"

namespace spear {
namespace {

using test::HttpAnswer;
using test::HttpClient;
using test::TestServiceOptions;

class Http : public testing::Test {
 protected:
  void start(TestServiceOptions options = {}, HttpOptions http = {}) {
    service_ = std::make_unique<test::TestService>(std::move(options));
    http.port = 0;
    http.log = [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      log_.push_back(line);
    };
    server_ = std::make_unique<HttpServer>(service_->service, http);
  }
  void TearDown() override {
    if (server_) server_->stop(2);
    if (service_) service_->engine.reset();
    server_.reset();
  }
  // A model that takes its time, so that answers are under way for long.
  void start_slow(HttpOptions http = {}) {
    TestServiceOptions options;
    options.step = std::chrono::milliseconds(5);
    options.context = 4096;
    options.pages = 4096;
    start(std::move(options), std::move(http));
  }
  [[nodiscard]] uint16_t port() const { return server_->port(); }
  Engine& engine() { return *service_->engine; }
  template <class Condition>
  static bool soon(Condition condition) {
    for (int i = 0; i < 1000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::string logged() {
    const std::lock_guard lock(mutex_);
    std::string all;
    for (const std::string& line : log_) all += line + "\n";
    return all;
  }
  // What nobody's request may disturb.
  void expect_alive() {
    HttpClient client(port());
    EXPECT_EQ(client.request("GET", "/health").status, 200);
    EXPECT_EQ(client.request("POST", "/v1/completions", R"({"prompt": "say:alive|>"})").status,
              200);
  }

  std::unique_ptr<test::TestService> service_;
  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::vector<std::string> log_;
};

constexpr const char* kEndless = R"({"prompt": "on", "max_tokens": 4000, "stream": true})";

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

struct BadBytes {
  const char* name;
  std::string bytes;
  int status;
};

TEST_F(Http, MalformedRequestsAreRefusedAndDisturbNobody) {
  start_slow();
  HttpClient beside(port());
  beside.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(std::string(kEndless).size()) + "\r\n\r\n" + kEndless);
  beside.read_until("data: ");
  const std::string post = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n";
  std::string many = "GET /health HTTP/1.1\r\n";
  for (int i = 0; i < 500; ++i) many += "X-" + std::to_string(i) + ": 1\r\n";
  std::string very_many = many;
  for (int i = 0; i < 10000; ++i) very_many += "Y-" + std::to_string(i) + ": 1\r\n";
  const std::vector<BadBytes> list = {
      {"a request line of 1 MB", "GET /" + std::string(1 << 20, 'a') + " HTTP/1.1\r\n\r\n", 431},
      {"a target of 9000 bytes", "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n\r\n", 414},
      {"a header of 1 MB", "GET / HTTP/1.1\r\nX: " + std::string(1 << 20, 'a') + "\r\n\r\n", 431},
      {"500 headers", many + "\r\n", 431},
      {"10k headers", very_many + "\r\n", 431},
      {"no length", post + "\r\n", 411},
      {"two lengths", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
      {"negative length", post + "Content-Length: -1\r\n\r\n", 400},
      {"huge length", post + "Content-Length: 99999999999999999999999\r\n\r\n", 400},
      {"length over the limit", post + "Content-Length: 100000000\r\n\r\n", 413},
      {"length and chunks",
       post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"chunk size overflow",
       post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n", 400},
      {"chunk of no size", post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n", 400},
      {"HTTP/0.9", "GET /health\r\n\r\n", 400},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"a TLS hello",
       std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(200, '\x01') +
           "\r\n\r\n",
       400},
      {"no colon", "GET /health HTTP/1.1\r\nNonsense\r\n\r\n", 400},
      {"NUL in a header", std::string("GET /health HTTP/1.1\r\nX: a\0b\r\n\r\n", 31), 400},
      {"spaces in the target", "GET /a b HTTP/1.1\r\n\r\n", 505},
  };
  for (const BadBytes& bad : list) {
    HttpClient client(port());
    client.send(bad.bytes);
    HttpAnswer answer;
    ASSERT_NO_THROW(answer = client.receive()) << bad.name;
    EXPECT_EQ(answer.status, bad.status) << bad.name << ": " << answer.body;
    const Json error = (test::Reply{answer.status, answer.body}).json()["error"];
    EXPECT_TRUE(error["message"].is_string()) << bad.name;
  }
  beside.read_until("data: ");
  expect_alive();
}

TEST_F(Http, ABodyOf100MegabytesIsRefusedUnread) {
  start();
  HttpClient client(port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(1 << 20, 'a') + "\r\n";
  for (int i = 0; i < 10; ++i) client.send(chunk);
  EXPECT_EQ(client.receive().status, 413);
  expect_alive();
}

TEST_F(Http, SlowClientsAreCutOff) {
  HttpOptions http;
  http.header_seconds = 0.3;
  http.body_seconds = 0.3;
  http.idle_seconds = 0.6;
  start({}, http);
  HttpClient idle(port());
  HttpClient slow_head(port());
  slow_head.send("GET /hea");
  HttpClient slow_body(port());
  slow_body.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_TRUE(slow_head.closed());
  EXPECT_TRUE(slow_body.closed());
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
  expect_alive();
}

TEST_F(Http, ClientsThatNeverReadAreCutOff) {
  HttpOptions http;
  http.write_seconds = 0.5;
  start({}, http);
  HttpClient deaf(port());
  std::string many;  // of replies of 20 KB: more than the sockets between us hold
  for (int i = 0; i < 1500; ++i) many += "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
  std::thread writer([&] { deaf.send(many); });
  EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
  writer.join();
  expect_alive();
}

TEST_F(Http, AClientThatLeavesFreesItsPages) {
  start_slow();
  for (const int way : {0, 1}) {
    HttpClient client(port());
    client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                std::to_string(std::string(kEndless).size()) + "\r\n\r\n" + kEndless);
    client.read_until("data: ");
    EXPECT_EQ(engine().stats().running, 1);
    if (way == 0) client.half_close();
    if (way == 1) client.reset();
    const auto left = std::chrono::steady_clock::now();
    EXPECT_TRUE(soon([&] { return engine().stats().running == 0; }));
    EXPECT_LT(std::chrono::steady_clock::now() - left, std::chrono::seconds(5));
  }
  EXPECT_TRUE(soon([&] { return logged().find("abandoned") != std::string::npos; })) << logged();
  EXPECT_NE(logged().find("499"), std::string::npos);
}

TEST_F(Http, AClientThatLeavesBeforeItsWholeAnswerFreesItToo) {
  start_slow();
  HttpClient client(port());
  const std::string body = R"({"prompt": "on", "max_tokens": 4000})";
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_TRUE(soon([&] { return engine().stats().running == 1; }));
  client.reset();
  EXPECT_TRUE(soon([&] { return engine().stats().running == 0; }));
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
