// What the server counts and times, as Prometheus text. Any thread counts; a scrape takes no lock
// that a step waits for.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "spear/engine/engine.h"

namespace spear {

// Counts of values at most each bound, and their sum.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds);
  void observe(double value);
  // Lines of NAME_bucket, NAME_sum, NAME_count with these labels ("a=\"b\",c=\"d\"").
  void append(std::string& out, std::string_view name, std::string_view labels) const;

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // one more than bounds
  std::atomic<double> sum_ = 0;
};

class ServeMetrics {
 public:
  ServeMetrics();

  // One gap between two tokens of an answer, and the first token since its request came.
  void first_token(double seconds) { time_to_first_token_.observe(seconds); }
  void token_gap(double seconds);
  // An answer ended.
  void answered(const Finish& finish);
  void accepted(const Request& request);
  void step(const StepShape& shape);
  // A request met both its objectives, or missed one (requests without any are not told).
  void judged(bool met);
  void http(std::string_view handler, std::string_view method, int status, double seconds);

  // `engine` may be null while the model is loading.
  [[nodiscard]] std::string text(const std::string& model, const Engine* engine) const;
  // Answers that ended a second, lately; 0 before the first ones.
  [[nodiscard]] double answers_per_second() const;

 private:
  void append_engine(std::string& out, const std::string& labels, const EngineStats& stats,
                     const Engine& engine) const;

  Histogram time_to_first_token_, gap_, fine_gap_, time_per_token_, whole_, queue_, prefill_,
      decode_, inference_;
  Histogram prompt_tokens_, answer_tokens_, step_tokens_, params_n_, params_max_tokens_;
  std::array<std::atomic<uint64_t>, 4> finished_{};  // by FinishReason
  std::atomic<uint64_t> slo_met_ = 0, slo_missed_ = 0;
  std::chrono::steady_clock::time_point start_;

  mutable std::mutex mutex_;  // of the HTTP counts and the rate
  std::map<std::tuple<std::string, std::string, int>, uint64_t> http_requests_;
  std::map<std::string, std::unique_ptr<Histogram>, std::less<>> http_seconds_;
  double rate_ = 0;
  std::chrono::steady_clock::time_point last_answer_;
};

}  // namespace spear
