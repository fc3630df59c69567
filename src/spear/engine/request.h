// What a client asks of the engine and what it gets back. Plain values: a Request is made by the
// client's thread and moved in; a Delta is seen by a TokenSink on the engine's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spear/base/error.h"

namespace spear {

class Constraint;

// How a token is chosen from the model's logits. In this order: bias, penalties, the constraint's
// mask; then temperature, top-k, typical, top-p, min-p, each on what the one before left.
struct SamplingParams {
  double temperature = 1;  // 0: the likeliest token
  int32_t top_k = 0;       // 0: off
  double typical_p = 1;    // 1: off; tokens of about the expected surprise, to this joint mass
  double top_p = 1;        // 1: off; the fewest likeliest tokens of this joint probability
  double min_p = 0;        // 0: off; a share of the likeliest token's probability
  double repetition_penalty = 1;  // 1: off; over prompt and answer; > 1 makes them less likely
  double presence_penalty = 0;    // taken off the logit of every token of the answer
  double frequency_penalty = 0;   // the same, times how often it occurred
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  std::optional<uint64_t> seed = {};  // none: drawn from the engine's
};

struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  int64_t max_tokens = 16;  // of the answer; 0: only prompt_logprobs are wanted
  int64_t min_tokens = 0;   // before them no end token, stop id or stop string ends the answer
  int32_t n = 1;            // answers
  int32_t best_of = 0;      // answers made, of which the n likeliest are given; 0: n
  std::vector<std::string> stop;  // end the answer; not part of its text
  bool include_stop = false;      // … unless so
  std::vector<int32_t> stop_ids;  // end the answer, beside the model's own end tokens
  bool ignore_eos = false;        // the model's own end tokens do not end it
  bool skip_special = true;       // no text for special tokens
  int32_t logprobs = -1;          // -1: none; k: of each token and of the k likeliest
  int32_t prompt_logprobs = -1;   // the same for the prompt
  std::shared_ptr<const Constraint> constraint;  // what the answer's text must match
  bool speculate = true;  // may guess by prompt look-up, where the engine does that

  // For the scheduler.
  int32_t priority = 0;       // higher first; docs/scheduling.md says by how much
  double ttft_objective = 0;  // seconds; 0: the engine's
  double itl_objective = 0;   // seconds; 0: the engine's
  bool full_quality = false;  // no compensator may be switched off for it under load
  bool bare = false;          // no compensator runs for it: the quantized model alone answers
  uint64_t cache_salt = 0;    // prefixes are shared among equal salts only
  bool use_prefix_cache = true;
};

// What a request may ask for at most; what the model and the pool can hold besides.
struct RequestLimits {
  int64_t vocab_size = 0;
  int64_t max_context = 0;   // tokens of prompt and answer: the model's, the pool's, the option's
  int32_t max_choices = 16;  // n and best_of
  int32_t max_logprobs = 20;
  size_t max_stop_strings = 16;
  size_t max_stop_bytes = 256;  // of each
  size_t max_stop_ids = 128;
  size_t max_logit_bias = 1024;
  int32_t max_priority = 100;  // and its negative
};

// kUsage with a sentence that names the field, what was found and what is expected.
Result<void> validate(const SamplingParams& sampling, const RequestLimits& limits);
Result<void> validate(const Request& request, const RequestLimits& limits);

enum class FinishReason : uint8_t {
  kStop,       // an end token, a stop id, a stop string, or the constraint is complete
  kLength,     // max_tokens or the context is full
  kCancelled,  // by cancel(), by its sink, or by drain()
  kError,      // Finish::message says why
};
const char* name_of(FinishReason reason);  // "stop", "length", "cancelled", "error"

struct Finish {
  FinishReason reason = FinishReason::kStop;
  int32_t stop_id = -1;          // the token that ended it, -1: none
  std::string stop_string = {};  // the one of Request::stop that did, empty: none
  std::string message = {};      // of kError
  // Seconds of the engine's clock.
  double arrival = 0, started = 0, first_token = 0, finished = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, tokens = 0;  // tokens: of this answer
  double logprob_sum = 0;  // of its tokens, under the model's own distribution
  int32_t preemptions = 0;
  // Under load: the most compensators that were off in one of its steps (a level; 0: none), and
  // gaps between its tokens that were longer than its objective, of how many.
  int32_t level = 0;
  int64_t gaps = 0, late_gaps = 0;
  double ttft_objective = 0, itl_objective = 0;  // as they applied, seconds; 0: none
};

// Whether a whole answer met its objectives: the first token in time, and of a hundred gaps (or
// part of a hundred) at most one late.
bool met_objectives(const Finish& finish);

struct TokenLogprob {
  int32_t token = -1;
  float logprob = 0;
};

// A token of an answer or a prompt. Log-probabilities are the model's own, before any change.
struct OutputToken {
  int32_t token = -1;
  float logprob = 0;                       // 0 where none were asked for
  std::span<const TokenLogprob> top = {};  // likeliest first
};

// What one step added to one answer. Views hold during the call only.
struct Delta {
  int32_t choice = 0;
  std::string_view text = {};                // whole characters, nothing of a stop string
  std::span<const OutputToken> tokens = {};  // as chosen; their text may follow in a later delta
  const Finish* finish = nullptr;            // not null: the last delta of this answer
};

// Where answers go. Called on the engine's thread only: it must not block nor throw.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // False: nobody listens any more; the request is cancelled.
  virtual bool on_delta(const Delta& delta) noexcept = 0;
  // With prompt_logprobs: every token of the prompt in pieces, in order; the first has no logprob.
  virtual bool on_prompt(std::span<const OutputToken> /*tokens*/) noexcept { return true; }
};

}  // namespace spear
