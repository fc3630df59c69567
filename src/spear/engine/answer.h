// One request while the engine has it, and each of its answers: the scheduler's sequence beside
// what chooses its tokens and makes its text. Made by submit() on the client's thread, with all the
// memory an answer needs; from then on the engine's thread alone touches it, `cancelled` excepted.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "spear/engine/constraint.h"
#include "spear/engine/output_text.h"
#include "spear/engine/prompt_lookup.h"
#include "spear/engine/request.h"
#include "spear/engine/token_sampler.h"
#include "spear/scheduler/sequence.h"

namespace spear {

struct ActiveRequest;

// A token as one step chose it; its likeliest alternatives stand in a vector beside it.
struct ChosenToken {
  int32_t token = -1;
  float logprob = 0;
  size_t top_begin = 0, top_count = 0;
};

struct ChosenTokens {
  std::vector<ChosenToken> tokens;
  std::vector<TokenLogprob> tops;
  void clear() {
    tokens.clear();
    tops.clear();
  }
};

struct Answer {
  Answer(ActiveRequest& request, int32_t choice, uint64_t seed, const Tokenizer* tokenizer,
         int64_t page_size, int64_t max_draft);
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  // The place of its sequence among those that arrived together.
  void number(uint64_t request_id);

  ActiveRequest& request;
  int32_t choice;
  Sequence sequence;
  TokenSampler sampler;
  OutputText text;
  PromptLookup lookup;
  std::optional<ConstraintMatcher> matcher;

  // Of the step under way.
  ChosenTokens chosen, prompt_chosen;
  const char* failure = nullptr;  // why no token could be chosen

  // So far.
  int64_t tokens = 0;           // of the answer
  int64_t prompt_reported = 0;  // prompt tokens whose log-probabilities were given out
  double logprob_sum = 0;
  double first_token = 0;
  int32_t level = 0;  // the most compensators that were off
  int64_t gaps = 0, late_gaps = 0;
  bool finished = false;
  Finish finish;
  // Kept back while it is not known which answers are given (best_of > n).
  std::string kept_text;
  ChosenTokens kept;
};

struct ActiveRequest {
  uint64_t id = 0;
  Request request;
  std::shared_ptr<TokenSink> sink;
  std::vector<std::unique_ptr<Answer>> answers;
  std::atomic<bool> cancelled = false;
  int64_t tokens_at_most = 0;  // prompt and answers: what it counts for while it waits
  double arrival = 0, started = 0;
  bool has_started = false, has_forked = false;

  [[nodiscard]] bool keeps_back() const { return request.best_of > request.n; }
  [[nodiscard]] bool wants_logprobs() const { return request.logprobs >= 0 || keeps_back(); }
  [[nodiscard]] bool finished() const {
    for (const auto& answer : answers)
      if (!answer->finished) return false;
    return true;
  }
};

inline Answer& answer_of(const Sequence& sequence) {
  return *static_cast<Answer*>(sequence.owner);
}

}  // namespace spear
