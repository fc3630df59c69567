// Chooses the tokens of a step from its logits: for each answer one token, and with drafts one more
// for every draft that turns out to be what is chosen anyway. Answers are served side by side on a
// pool where there is one; each touches its own state only, so the result does not depend on that.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "spear/engine/answer.h"
#include "spear/scheduler/scheduler.h"

namespace spear {

class ThreadPool;

// Rows of a step and where their logits stand.
struct StepRows {
  ScheduledRows rows;
  int64_t first_logit = 0;  // row of the logits; its last ones belong to the last rows
  int64_t logits = 0;
};

class TokenChooser {
 public:
  // `end_ids` end an answer unless its request ignores them. The pool may be null.
  TokenChooser(int64_t vocab_size, std::vector<int32_t> end_ids, ThreadPool* pool);

  // Fills Answer::chosen, prompt_chosen and failure of every row's answer (and of answers that
  // start with it). The logits are overwritten.
  void choose(std::span<const StepRows> rows, std::span<float> logits);

  // Whether the token ends the answer.
  [[nodiscard]] bool ends(const Request& request, int32_t token) const;

 private:
  void serve(const StepRows& rows, std::span<float> logits, SamplerWorkspace& workspace);
  void report_prompt(const StepRows& rows, std::span<float> logits, std::vector<TokenLogprob>& top);
  // False: no token can be chosen.
  bool choose_one(Answer& answer, std::span<float> row, SamplerWorkspace& workspace);
  void forbid_ends(const Request& request, std::span<float> row) const;
  [[nodiscard]] std::span<float> row_of(std::span<float> logits, int64_t row) const;

  int64_t vocab_size_;
  std::vector<int32_t> end_ids_;
  ThreadPool* pool_;
  std::mutex mutex_;  // of the free workspaces
  std::vector<SamplerWorkspace> workspaces_;
  std::vector<SamplerWorkspace*> free_;
};

}  // namespace spear
