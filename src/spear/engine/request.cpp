#include "spear/engine/request.h"

#include <cmath>

#include <fmt/format.h>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

template <class T>
Result<void> refuse(const char* field, const char* expected, T found) {
  return fail(ErrorCode::kUsage, fmt::format("{}: {} expected, found {}", field, expected, found));
}

bool in_range(double value, double low, double high) {  // false for NaN
  return value >= low && value <= high;
}

Result<void> check_ids(const char* field, std::span<const int32_t> ids, int64_t vocab_size) {
  for (const int32_t id : ids)
    if (id < 0 || id >= vocab_size)
      return fail(ErrorCode::kUsage, fmt::format("{}: token ids 0 to {} expected, found {}", field,
                                                 vocab_size - 1, id));
  return {};
}

Result<void> check_stops(const Request& r, const RequestLimits& limits) {
  if (r.stop.size() > limits.max_stop_strings)
    return fail(ErrorCode::kUsage, fmt::format("stop: at most {} strings expected, found {}",
                                               limits.max_stop_strings, r.stop.size()));
  for (const std::string& stop : r.stop)
    if (stop.empty() || stop.size() > limits.max_stop_bytes)
      return fail(ErrorCode::kUsage,
                  fmt::format("stop: strings of 1 to {} bytes expected, found one of {}",
                              limits.max_stop_bytes, stop.size()));
  for (const std::string& stop : r.stop)
    if (!is_valid_utf8(stop))
      return fail(ErrorCode::kUsage, "stop: valid UTF-8 expected, found other bytes");
  if (r.stop_ids.size() > limits.max_stop_ids)
    return fail(ErrorCode::kUsage, fmt::format("stop_token_ids: at most {} expected, found {}",
                                               limits.max_stop_ids, r.stop_ids.size()));
  return check_ids("stop_token_ids", r.stop_ids, limits.vocab_size);
}

Result<void> check_counts(const Request& r, const RequestLimits& limits) {
  if (r.max_tokens < 0) return refuse("max_tokens", "0 or more", r.max_tokens);
  if (r.min_tokens < 0 || r.min_tokens > r.max_tokens)
    return refuse("min_tokens", "0 to max_tokens", r.min_tokens);
  if (r.n < 1 || r.n > limits.max_choices)
    return fail(ErrorCode::kUsage,
                fmt::format("n: 1 to {} expected, found {}", limits.max_choices, r.n));
  if (r.best_of != 0 && (r.best_of < r.n || r.best_of > limits.max_choices))
    return fail(ErrorCode::kUsage, fmt::format("best_of: n ({}) to {} expected, found {}", r.n,
                                               limits.max_choices, r.best_of));
  for (const auto& [field, value] :
       {std::pair("logprobs", r.logprobs), std::pair("prompt_logprobs", r.prompt_logprobs)})
    if (value < -1 || value > limits.max_logprobs)
      return fail(ErrorCode::kUsage,
                  fmt::format("{}: 0 to {} expected, found {}", field, limits.max_logprobs, value));
  if (r.priority < -limits.max_priority || r.priority > limits.max_priority)
    return fail(ErrorCode::kUsage,
                fmt::format("priority: {} to {} expected, found {}", -limits.max_priority,
                            limits.max_priority, r.priority));
  if (!(r.ttft_objective >= 0 && r.ttft_objective <= 1e6))
    return refuse("ttft_objective", "0 (none) to 1000000 seconds", r.ttft_objective);
  if (!(r.itl_objective >= 0 && r.itl_objective <= 1e6))
    return refuse("itl_objective", "0 (none) to 1000000 seconds", r.itl_objective);
  return {};
}

}  // namespace

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

bool met_objectives(const Finish& f) {
  if (f.reason != FinishReason::kStop && f.reason != FinishReason::kLength) return false;
  if (f.ttft_objective > 0 && f.first_token - f.arrival > f.ttft_objective) return false;
  return f.late_gaps <= (f.gaps + 99) / 100;
}

Result<void> validate(const SamplingParams& s, const RequestLimits& limits) {
  if (!in_range(s.temperature, 0, 100)) return refuse("temperature", "0 to 100", s.temperature);
  if (s.top_k < 0) return refuse("top_k", "0 (off) or more", s.top_k);
  if (!(in_range(s.typical_p, 0, 1) && s.typical_p > 0))
    return refuse("typical_p", "above 0, at most 1", s.typical_p);
  if (!(in_range(s.top_p, 0, 1) && s.top_p > 0))
    return refuse("top_p", "above 0, at most 1", s.top_p);
  if (!(in_range(s.min_p, 0, 1) && s.min_p < 1))
    return refuse("min_p", "0 (off) to below 1", s.min_p);
  if (!in_range(s.repetition_penalty, 0.1, 10))
    return refuse("repetition_penalty", "0.1 to 10", s.repetition_penalty);
  if (!in_range(s.presence_penalty, -2, 2))
    return refuse("presence_penalty", "-2 to 2", s.presence_penalty);
  if (!in_range(s.frequency_penalty, -2, 2))
    return refuse("frequency_penalty", "-2 to 2", s.frequency_penalty);
  if (s.logit_bias.size() > limits.max_logit_bias)
    return fail(ErrorCode::kUsage, fmt::format("logit_bias: at most {} tokens expected, found {}",
                                               limits.max_logit_bias, s.logit_bias.size()));
  for (const auto& [id, bias] : s.logit_bias) {
    if (Result<void> known = check_ids("logit_bias", {&id, 1}, limits.vocab_size); !known)
      return known;
    if (!in_range(bias, -100, 100)) return refuse("logit_bias", "-100 to 100", bias);
  }
  return {};
}

Result<void> validate(const Request& r, const RequestLimits& limits) {
  if (r.prompt.empty())
    return fail(ErrorCode::kUsage, "prompt: at least one token expected, found none");
  if (Result<void> ids = check_ids("prompt", r.prompt, limits.vocab_size); !ids) return ids;
  if (Result<void> counts = check_counts(r, limits); !counts) return counts;
  if (Result<void> sampling = validate(r.sampling, limits); !sampling) return sampling;
  return check_stops(r, limits);
}

}  // namespace spear
