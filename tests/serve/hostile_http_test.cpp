// Clients that break HTTP, dawdle, never read or vanish: each gets its status or is cut off, its
// pages are freed, and a stream beside it goes on.
#include <chrono>
#include <thread>

#include <sys/resource.h>

#include "serve/http_fixture.h"

namespace spear {
namespace {

using test::HttpAnswer;
using test::HttpClient;
using test::kEndless;
using test::post_bytes;
using test::TestServiceOptions;

class HostileHttp : public test::HttpFixture {};

struct BadBytes {
  const char* name;
  std::string bytes;
  int status;
};

TEST_F(HostileHttp, MalformedRequestsAreRefusedAndDisturbNobody) {
  start_slow();
  HttpClient beside(port());
  beside.send(post_bytes(kEndless));
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

TEST_F(HostileHttp, ABodyOf100MegabytesIsRefusedUnread) {
  start();
  HttpClient client(port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(1 << 20, 'a') + "\r\n";
  for (int i = 0; i < 10; ++i) client.send(chunk);
  EXPECT_EQ(client.receive().status, 413);
  expect_alive();
}

TEST_F(HostileHttp, SlowClientsAreCutOff) {
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

TEST_F(HostileHttp, ClientsThatNeverReadAreCutOff) {
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

TEST_F(HostileHttp, AClientThatLeavesFreesItsPages) {
  start_slow();
  for (const int way : {0, 1}) {
    HttpClient client(port());
    client.send(post_bytes(kEndless));
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

TEST_F(HostileHttp, AClientThatLeavesBeforeItsWholeAnswerFreesItToo) {
  start_slow();
  HttpClient client(port());
  const std::string body = R"({"prompt": "on", "max_tokens": 4000})";
  client.send(post_bytes(body));
  EXPECT_TRUE(soon([&] { return engine().stats().running == 1; }));
  client.reset();
  EXPECT_TRUE(soon([&] { return engine().stats().running == 0; }));
}

// A byte now and then does not buy time: the limits hold for the whole head and the whole body.
TEST_F(HostileHttp, ClientsThatTrickleAreCutOff) {
  HttpOptions http;
  http.header_seconds = 0.4;
  http.body_seconds = 0.4;
  start({}, http);
  for (const bool in_body : {false, true}) {
    HttpClient slow(port());
    if (in_body) slow.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_TRUE(soon([&] { return server_->connections() == 1; }));
    for (int sent = 0; sent < 500 && server_->connections() > 0; ++sent) {
      slow.send("a");
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(3)) << in_body;
    EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
  }
  expect_alive();
}

// A stream of megabytes into a socket that nobody reads: the writer's time runs out or the reader
// has fallen too far behind, and the engine is free again.
TEST_F(HostileHttp, AStreamThatNobodyReadsIsGivenUp) {
  HttpOptions http;
  http.write_seconds = 0.5;
  TestServiceOptions options;
  options.context = 4096;
  options.pages = 20000;
  options.step = std::chrono::milliseconds(1);
  start(std::move(options), http);
  HttpClient deaf(port());
  deaf.send(post_bytes(R"({"prompt": "on", "max_tokens": 4000, "n": 16, "logprobs": 5,
                           "stream": true})"));
  EXPECT_TRUE(soon([&] { return engine().stats().running > 0; }));
  expect_alive();
  EXPECT_TRUE(soon([&] { return engine().stats().running == 0; }));
  EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
  EXPECT_NE(logged().find("\"status\":499"), std::string::npos) << logged();
  expect_alive();
}

TEST_F(HostileHttp, RequestIdsCannotForgeLogLines) {
  start();
  HttpClient client(port());
  client.send("GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\n {\"forged\": 1}\r\n\r\n");
  EXPECT_EQ(client.receive().status, 200);
  client.send("GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\n{\"forged\": 1}\r\n\r\n");
  client.closed();
  EXPECT_TRUE(soon([&] { return logged().find("/version") != std::string::npos; }));
  EXPECT_EQ(logged().find("forged"), std::string::npos) << logged();
}

TEST_F(HostileHttp, AThousandClientsAtOnceAreAllAnswered) {
  constexpr rlim_t kNeeded = 2300;  // both ends are ours
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < kNeeded) GTEST_SKIP() << "the limit of open files is too low here";
  files.rlim_cur = std::max(files.rlim_cur, kNeeded);
  setrlimit(RLIMIT_NOFILE, &files);
  start();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(std::make_unique<HttpClient>(port()));
    clients.back()->send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  int right = 0;
  for (const auto& client : clients) right += client->receive().status == 200 ? 1 : 0;
  EXPECT_EQ(right, 1000);
}

}  // namespace
}  // namespace spear
