// The server without its sockets: which requests there are, who may ask, what the answer is. Before
// attach() it answers that the model is loading. Safe from every thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/json_fwd.h"
#include "spear/serve/api_error.h"
#include "spear/serve/api_keys.h"
#include "spear/serve/exchange.h"
#include "spear/serve/metrics.h"
#include "spear/serve/serve_limits.h"
#include "spear/serve/served_model.h"

namespace spear {

struct ServiceOptions {
  ApiKeys keys;
  std::vector<std::string> cors_origins;  // that browsers may ask from; "*": all; none: CORS off
  std::string version;                    // of the program
  ServeLimits limits;
  bool open_metrics = false;  // /metrics wants no key
};

class AnswerWriter;

// One finished or given-up request, for the log: no text of prompts or answers.
struct RequestLine {
  std::string id = {}, method = {}, route = {};
  int status = 0;
  double seconds = 0;
  ExchangeRecord answer = {};
};
std::string log_line(const RequestLine& line);  // one line of JSON

// What handle() gives: a reply, or an exchange that will.
struct Handled {
  HttpReply reply;
  std::unique_ptr<Exchange> exchange;
};

class Service {
 public:
  explicit Service(ServiceOptions options);
  ~Service();

  // The model is there; it and its engine outlive every exchange.
  void attach(std::shared_ptr<const ServedModel> model);
  // No longer ready; what is asked is still answered. Then, with refuse_new(), no more.
  void begin_drain() { ready_ = false; }
  void refuse_new() { refusing_ = true; }

  // What the head alone says against a request: then its body need not be read.
  [[nodiscard]] std::optional<HttpReply> refuse_head(const HttpRequest& request) const;
  // Whether handle() takes no time worth a thread of its own.
  [[nodiscard]] bool is_quick(const HttpRequest& request) const;
  // Never throws. `wake` is called on other threads when the exchange should be polled.
  Handled handle(const HttpRequest& request, std::function<void()> wake);
  // Adds what every reply carries: the request's id, CORS.
  void finish_headers(const HttpRequest& request, HttpReply& reply) const;

  [[nodiscard]] ServeMetrics& metrics() { return metrics_; }
  [[nodiscard]] const ServeLimits& limits() const { return options_.limits; }
  // Counts it and makes its log line.
  std::string finished(const HttpRequest& request, int status, double seconds,
                       const ExchangeRecord& answer);

 private:
  struct Route;
  static const Route* find_route(std::string_view method, std::string_view path);
  [[nodiscard]] std::shared_ptr<const ServedModel> model() const {
    return std::atomic_load(&model_);
  }
  [[nodiscard]] ApiResult<Json> read_body(const HttpRequest& request) const;
  [[nodiscard]] std::optional<ApiError> unavailable(bool new_work) const;

  HttpReply health() const;
  HttpReply readiness() const;
  HttpReply metrics_text();
  HttpReply model_card(const ServedModel& model, std::string_view path) const;
  static std::optional<ApiError> foreseen_late(const HttpRequest& request, const Json& body,
                                               const ServedModel& served);
  Handled post(const HttpRequest& request, const Route& route, std::function<void()> wake);
  Handled completions(const HttpRequest& request, const Json& body,
                      std::shared_ptr<const ServedModel> model, std::function<void()> wake);
  Handled chat(const HttpRequest& request, const Json& body,
               std::shared_ptr<const ServedModel> model, std::function<void()> wake);
  Handled run(const ServedModel& model, std::vector<Request> requests,
              std::unique_ptr<AnswerWriter> writer, bool stream, std::function<void()> wake);

  ServiceOptions options_;
  ServeMetrics metrics_;
  std::shared_ptr<const ServedModel> model_;
  std::atomic<bool> ready_ = true, refusing_ = false;
  std::atomic<uint64_t> answers_ = 0;
  uint64_t boot_;  // parts the ids of this process from those of others
};

}  // namespace spear
