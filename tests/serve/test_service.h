// A service over the talking model, asked without sockets: what the server is but for HTTP.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "spear/base/json.h"
#include "spear/engine/engine.h"
#include "spear/serve/service.h"

#include "serve/talking_model.h"

namespace spear::test {

struct Reply {
  int status = 0;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};

  [[nodiscard]] Json json() const { return value_or_throw(parse_json(body, "reply")); }
  [[nodiscard]] std::string header(const std::string& name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }
  // The data of an event stream, the end mark left out but demanded.
  [[nodiscard]] std::vector<Json> events() const {
    std::vector<Json> list;
    size_t at = 0;
    bool done = false;
    while (at < body.size()) {
      const size_t end = body.find("\n\n", at);
      if (end == std::string::npos || done) throw std::runtime_error("not an event: " + body);
      const std::string line = body.substr(at, end - at);
      at = end + 2;
      if (line == ": ping") continue;
      if (!line.starts_with("data: ")) throw std::runtime_error("not data: " + line);
      if (line == "data: [DONE]")
        done = true;
      else
        list.push_back(value_or_throw(parse_json(line.substr(6), "event")));
    }
    if (!done) throw std::runtime_error("no end mark: " + body);
    return list;
  }
};

struct TestServiceOptions {
  std::string chat_template = kChatTemplate;
  ServiceOptions service = {};
  EngineOptions engine = {};
  int64_t pages = 512;
  int64_t context = 256;
  std::chrono::microseconds step{0};
};

class TestService {
 public:
  explicit TestService(TestServiceOptions options = {})
      : tokenizer_(byte_tokenizer()),
        model(257, options.pages, 4, options.context, talk),
        service(std::move(options.service)) {
    model.delay = options.step;
    options.engine.limits.max_choices = 128;
    engine = std::make_unique<Engine>(model, &tokenizer_, options.engine);
    ModelFacts facts{.name = "tiny",
                     .fingerprint = "spear-test",
                     .created = 7,
                     .chat_template = options.chat_template,
                     .certificate = R"({"perplexity": 21.5})",
                     .facts = R"({"n_vocab": 257})"};
    service.attach(std::make_shared<ServedModel>(*engine, std::move(facts)));
  }

  Reply ask(const std::string& method, const std::string& target, const std::string& body = {},
            std::vector<std::pair<std::string, std::string>> headers = {}) {
    HttpRequest request{.method = method,
                        .target = target,
                        .headers = std::move(headers),
                        .body = body,
                        .id = "id",
                        .has_length = method == "POST"};
    if (auto refused = service.refuse_head(request))
      return {refused->status, refused->body, refused->headers};
    const auto state = std::make_shared<State>();
    Handled handled = service.handle(request, [state] { state->wake(); });
    if (!handled.exchange) return {handled.reply.status, handled.reply.body, handled.reply.headers};
    return read(*handled.exchange, *state);
  }
  Reply post(const std::string& target, const std::string& body) {
    return ask("POST", target, body);
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int wakes = 0;
    void wake() {
      const std::lock_guard lock(mutex);
      ++wakes;
      changed.notify_all();
    }
  };

  static Reply read(Exchange& exchange, State& state) {
    Reply whole{.status = 200, .body = {}};
    int seen = 0;
    for (;;) {
      HttpReply reply;
      std::string events;
      const ExchangeState progress = exchange.poll(reply, events);
      whole.body += events;
      if (progress == ExchangeState::kReply) return {reply.status, reply.body, reply.headers};
      if (progress == ExchangeState::kEnd) return whole;
      std::unique_lock lock(state.mutex);
      if (!state.changed.wait_for(lock, std::chrono::seconds(60),
                                  [&] { return state.wakes > seen; }))
        throw std::runtime_error("no answer in a minute");
      seen = state.wakes;
    }
  }

  Tokenizer tokenizer_;

 public:
  ScriptedModel model;
  Service service;
  std::unique_ptr<Engine> engine;
};

// Somebody who asks again and again while others misbehave, and checks every answer.
class Neighbour {
 public:
  explicit Neighbour(TestService& server) : thread_([this, &server] { run(server); }) {}
  ~Neighbour() { stop(); }
  Neighbour(const Neighbour&) = delete;
  Neighbour& operator=(const Neighbour&) = delete;

  // Answers that were wrong; -1 where there was none at all.
  int wrong() {
    stop();
    return answers_ == 0 ? -1 : wrong_;
  }

 private:
  void stop() {
    done_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void run(TestService& server) {
    do {
      const std::string text = "answer " + std::to_string(answers_);
      const Reply reply =
          server.post("/v1/completions",
                      R"({"prompt": "say:)" + text + R"(|>", "temperature": 0, "stream": true})");
      std::string got;
      if (reply.status == 200)
        for (const Json& event : reply.events())
          got += event["choices"][0]["text"].get<std::string>();
      wrong_ += got == text ? 0 : 1;
      ++answers_;
    } while (!done_);
  }

  std::atomic<bool> done_ = false;
  int answers_ = 0, wrong_ = 0;
  std::thread thread_;
};

}  // namespace spear::test
