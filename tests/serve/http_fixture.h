// The server with real sockets on loopback, over the talking model: what its tests start from.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "spear/serve/http_server.h"

#include "serve/http_client.h"
#include "serve/test_service.h"

namespace spear::test {

class HttpFixture : public testing::Test {
 protected:
  void start(TestServiceOptions options = {}, HttpOptions http = {}) {
    service_ = std::make_unique<TestService>(std::move(options));
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

  std::unique_ptr<TestService> service_;
  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::vector<std::string> log_;
};

inline constexpr const char* kEndless = R"({"prompt": "on", "max_tokens": 4000, "stream": true})";
// The bytes of a completion request.
inline std::string post_bytes(const std::string& body) {
  return "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace spear::test
