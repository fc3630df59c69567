// A scheduler run step by step on a virtual clock by a model that knows no numbers: every sequence
// answers until it has its tokens. Invariants are checked after each step.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "spear/scheduler/scheduler.h"

namespace spear::test {

class SchedulerHarness {
 public:
  explicit SchedulerHarness(const SchedulerOptions& options, const LinearCosts& costs = {})
      : scheduler(options), batch(options), costs_(costs), options_(options), again_(options) {}

  Sequence& make(const std::vector<int32_t>& prompt, int64_t answer, int32_t priority = 0) {
    Sequence& s = *sequences.emplace_back(std::make_unique<Sequence>());
    s.id = next_id_++;
    s.priority = priority;
    s.arrival = now;
    s.prompt_tokens = static_cast<int64_t>(prompt.size());
    s.max_tokens = s.prompt_tokens + answer;
    reserve_for_life(s, options_.page_size, options_.max_draft);
    s.tokens.assign(prompt.begin(), prompt.end());
    return s;
  }

  // One step; false: there was nothing to do.
  bool step() {
    scheduler.plan(now, costs_, batch);
    scheduler.plan(now, costs_, again_);  // pure: the same question has the same answer
    EXPECT_EQ(again_.rows.size(), batch.rows.size());
    EXPECT_EQ(again_.total_rows, batch.total_rows);
    EXPECT_EQ(again_.preempted, batch.preempted);
    EXPECT_LE(batch.total_rows, options_.token_budget);
    scheduler.commit(batch);
    check();
    if (batch.empty()) return !batch.preempted.empty();
    now += costs_.seconds(batch.shape);
    for (const ScheduledRows& rows : batch.rows) finish_rows(rows);
    check();
    return true;
  }

  void check() { ASSERT_EQ(scheduler.check(), nullptr) << scheduler.check(); }

  // How many drafts of a step turn out right.
  std::function<int64_t(const ScheduledRows&)> right_drafts = [](const ScheduledRows&) {
    return int64_t{0};
  };
  std::function<void(Sequence&)> on_end = [](Sequence&) {};

  Scheduler scheduler;
  ScheduledBatch batch;
  double now = 0;
  std::vector<std::unique_ptr<Sequence>> sequences;

 private:
  void finish_rows(const ScheduledRows& rows) {
    Sequence& s = *rows.sequence;
    int64_t added = 0;
    if (rows.samples) {
      const int64_t most = 1 + std::min(right_drafts(rows), rows.drafts);
      for (; added < most && s.length() < s.max_tokens; ++added)
        s.tokens.push_back(static_cast<int32_t>(s.id) * 1000 + static_cast<int32_t>(s.length()));
    }
    scheduler.completed(s, rows.rows - rows.drafts + std::max<int64_t>(added - 1, 0));
    s.last_token = now;
    if (s.length() < s.max_tokens) return;
    scheduler.remove(s);
    on_end(s);
  }

  LinearCosts costs_;
  SchedulerOptions options_;
  ScheduledBatch again_;
  uint64_t next_id_ = 1;
};

inline std::vector<int32_t> counting(int64_t count, int32_t first = 0) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(first + static_cast<int32_t>(i));
  return tokens;
}

}  // namespace spear::test
