#include "spear/serve/metrics.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace spear {
namespace {

constexpr double kFirstToken[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                  1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
constexpr double kGap[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                           .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
constexpr double kFineGap[] = {.0005, .001, .0015, .002, .003, .004, .005, .0075, .01, .015, .02,
                               .03,   .04,  .05,   .075, .1,   .15,  .2,   .3,    .5,  1};
constexpr double kRequest[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                               30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
constexpr double kTokens[] = {1,   2,    5,    10,   20,    50,    100,   200,
                              500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
constexpr double kStepTokens[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
constexpr double kChoices[] = {1, 2, 5, 10, 20};
constexpr double kHttp[] = {.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300};

// Label values may hold anything a file is called.
std::string quoted(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + '"';
}

void append_head(std::string& out, std::string_view name, std::string_view type,
                 std::string_view help) {
  out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void append_value(std::string& out, std::string_view name, std::string_view type,
                  std::string_view help, std::string_view labels, double value) {
  append_head(out, name, type, help);
  out += fmt::format("{}{{{}}} {}\n", name, labels, value);
}

void append_histogram(std::string& out, std::string_view name, std::string_view help,
                      std::string_view labels, const Histogram& histogram) {
  append_head(out, name, "histogram", help);
  histogram.append(out, name, labels);
}

}  // namespace

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()),
      counts_(std::make_unique<std::atomic<uint64_t>[]>(bounds.size() + 1)) {}

void Histogram::observe(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(at)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

void Histogram::append(std::string& out, std::string_view name, std::string_view labels) const {
  uint64_t total = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    total += counts_[i].load(std::memory_order_relaxed);
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, total);
  }
  out += fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels,
                     sum_.load(std::memory_order_relaxed), name, labels, total);
}

ServeMetrics::ServeMetrics()
    : time_to_first_token_(kFirstToken),
      gap_(kGap),
      fine_gap_(kFineGap),
      time_per_token_(kGap),
      whole_(kRequest),
      queue_(kRequest),
      prefill_(kRequest),
      decode_(kRequest),
      inference_(kRequest),
      prompt_tokens_(kTokens),
      answer_tokens_(kTokens),
      step_tokens_(kStepTokens),
      params_n_(kChoices),
      params_max_tokens_(kTokens),
      start_(std::chrono::steady_clock::now()),
      last_answer_(start_) {}

void ServeMetrics::token_gap(double seconds) {
  gap_.observe(seconds);
  fine_gap_.observe(seconds);
}

void ServeMetrics::accepted(const Request& request) {
  prompt_tokens_.observe(static_cast<double>(request.prompt.size()));
  params_n_.observe(request.n);
  params_max_tokens_.observe(static_cast<double>(request.max_tokens));
}

void ServeMetrics::answered(const Finish& f) {
  finished_[static_cast<size_t>(f.reason)].fetch_add(1, std::memory_order_relaxed);
  const auto now = std::chrono::steady_clock::now();
  {
    // A mean over about a minute: each answer moves it by its share of that minute.
    const std::lock_guard lock(mutex_);
    const double gap = std::chrono::duration<double>(now - last_answer_).count();
    constexpr double kMemory = 60;
    rate_ = rate_ * std::exp(-gap / kMemory) + 1 / kMemory;
    last_answer_ = now;
  }
  if (f.reason == FinishReason::kCancelled || f.reason == FinishReason::kError) return;
  answer_tokens_.observe(static_cast<double>(f.tokens));
  whole_.observe(f.finished - f.arrival);
  queue_.observe(f.started - f.arrival);
  inference_.observe(f.finished - f.started);
  if (f.tokens == 0) return;
  prefill_.observe(f.first_token - f.started);
  decode_.observe(f.finished - f.first_token);
  if (f.tokens > 1)
    time_per_token_.observe((f.finished - f.first_token) / static_cast<double>(f.tokens - 1));
}

void ServeMetrics::step(const StepShape& shape) {
  step_tokens_.observe(static_cast<double>(shape.decode_rows + shape.prefill_tokens));
}

void ServeMetrics::judged(bool met) {
  (met ? slo_met_ : slo_missed_).fetch_add(1, std::memory_order_relaxed);
}

void ServeMetrics::http(std::string_view handler, std::string_view method, int status,
                        double seconds) {
  const std::lock_guard lock(mutex_);
  ++http_requests_[{std::string(handler), std::string(method), status}];
  auto at = http_seconds_.find(handler);
  if (at == http_seconds_.end())
    at = http_seconds_.emplace(std::string(handler), std::make_unique<Histogram>(kHttp)).first;
  at->second->observe(seconds);
}

double ServeMetrics::answers_per_second() const {
  const std::lock_guard lock(mutex_);
  return rate_;
}

void ServeMetrics::append_engine(std::string& out, const std::string& labels, const EngineStats& s,
                                 const Engine& engine) const {
  const double used =
      s.pages == 0 ? 0 : static_cast<double>(s.used_pages) / static_cast<double>(s.pages);
  const auto gauge = [&](std::string_view name, std::string_view help, double value) {
    append_value(out, name, "gauge", help, labels, value);
  };
  const auto counter = [&](std::string_view name, std::string_view help, int64_t value) {
    append_value(out, name, "counter", help, labels, static_cast<double>(value));
  };
  gauge("vllm:num_requests_running", "Answers that run.", s.running);
  gauge("vllm:num_requests_waiting", "Requests that wait for their first step.", s.waiting);
  gauge("vllm:kv_cache_usage_perc", "Pages of keys and values in use, 0 to 1.", used);
  gauge("vllm:gpu_cache_usage_perc", "The same under its older name.", used);
  append_value(out, "vllm:cache_config_info", "gauge", "The pool of keys and values.",
               labels + fmt::format(",num_gpu_blocks=\"{}\",max_model_len=\"{}\"", s.pages,
                                    engine.limits().max_context),
               1);
  gauge("spear:waiting_tokens", "Tokens that waiting requests may come to.",
        static_cast<double>(s.waiting_tokens));
  gauge("spear:healthy", "1 while the engine runs.", engine.healthy() ? 1 : 0);
  gauge("spear:last_step_seconds", "What the last step took.", s.last_step_seconds);
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up.", s.prefix_queries);
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found.", s.prefix_hits);
  counter("vllm:gpu_prefix_cache_queries_total", "The same, older name.", s.prefix_queries);
  counter("vllm:gpu_prefix_cache_hits_total", "The same, older name.", s.prefix_hits);
  counter("vllm:num_preemptions_total", "Sequences put back to wait.", s.preemptions);
  counter("vllm:prompt_tokens_total", "Tokens of prompts.", s.prompt_tokens);
  counter("vllm:generation_tokens_total", "Tokens of answers.", s.generated_tokens);
  counter("spear:steps_total", "Steps of the model.", s.steps);
  counter("spear:draft_tokens_total", "Tokens guessed.", s.drafted_tokens);
  counter("spear:accepted_draft_tokens_total", "Of those, right.", s.accepted_drafts);
  counter("spear:refused_late_total", "Requests refused by their predicted time.", s.refused_late);
  gauge("spear:step_cost_error", "Mean relative error of predicted step times.", s.cost_error);
  gauge("spear:step_cost_headroom", "What predictions are multiplied with for deadlines.",
        s.cost_headroom);
  gauge("spear:ttft_objective_seconds", "Of requests that bring none; 0: none.", s.ttft_objective);
  gauge("spear:itl_objective_seconds", "Between tokens, likewise.", s.itl_objective);
  gauge("spear:compensator_level", "Of the last step; 0: all compensators ran.", s.level);
  counter("spear:degraded_steps_total", "Steps with compensators off.", s.steps_below_full);
  append_value(out, "spear:busy_seconds_total", "counter", "Seconds spent in steps.", labels,
               s.busy_seconds);
}

std::string ServeMetrics::text(const std::string& model, const Engine* engine) const {
  const std::string labels = fmt::format("model_name={},engine=\"0\"", quoted(model));
  std::string out;
  if (engine != nullptr) append_engine(out, labels, engine->stats(), *engine);
  append_head(out, "vllm:request_success_total", "counter", "Answers by how they ended.");
  constexpr const char* kReasons[] = {"stop", "length", "abort", "error"};
  for (size_t i = 0; i < finished_.size(); ++i)
    out += fmt::format("vllm:request_success_total{{{},finished_reason=\"{}\"}} {}\n", labels,
                       kReasons[i], finished_[i].load(std::memory_order_relaxed));
  const auto histogram = [&](std::string_view name, std::string_view help, const Histogram& h) {
    append_histogram(out, name, help, labels, h);
  };
  histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.",
            time_to_first_token_);
  histogram("vllm:inter_token_latency_seconds", "Between two tokens of an answer.", gap_);
  histogram("spear:inter_token_latency_seconds", "The same, in finer steps.", fine_gap_);
  histogram("vllm:request_time_per_output_token_seconds", "Mean of an answer's gaps.",
            time_per_token_);
  histogram("vllm:time_per_output_token_seconds", "Gaps, older name.", gap_);
  histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", whole_);
  histogram("vllm:request_queue_time_seconds", "Waiting for the first step.", queue_);
  histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.",
            prefill_);
  histogram("vllm:request_decode_time_seconds", "From the first token to the end.", decode_);
  histogram("vllm:request_inference_time_seconds", "From the first step to the end.", inference_);
  histogram("vllm:request_prompt_tokens", "Of a request.", prompt_tokens_);
  histogram("vllm:request_generation_tokens", "Of an answer.", answer_tokens_);
  histogram("vllm:iteration_tokens_total", "Rows of a step.", step_tokens_);
  histogram("vllm:request_params_n", "Answers asked for.", params_n_);
  histogram("vllm:request_params_max_tokens", "Longest answer asked for.", params_max_tokens_);
  append_value(out, "spear:slo_goodput_total", "counter", "Answers that met their objectives.",
               labels, static_cast<double>(slo_met_.load()));
  append_value(out, "spear:slo_violation_total", "counter", "Answers that missed one.", labels,
               static_cast<double>(slo_missed_.load()));

  const std::lock_guard lock(mutex_);
  append_head(out, "http_requests_total", "counter", "Requests by route and status.");
  for (const auto& [key, count] : http_requests_)
    out += fmt::format("http_requests_total{{handler=\"{}\",method=\"{}\",status=\"{}\"}} {}\n",
                       std::get<0>(key), std::get<1>(key), std::get<2>(key), count);
  append_head(out, "http_request_duration_seconds", "histogram", "Until the reply's last byte.");
  for (const auto& [handler, seconds] : http_seconds_)
    seconds->append(out, "http_request_duration_seconds", fmt::format("handler=\"{}\"", handler));
  return out;
}

}  // namespace spear
