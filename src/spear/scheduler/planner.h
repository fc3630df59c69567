// One call of Scheduler::plan() under way: reads the scheduler, writes the batch, changes nothing
// else. plan.cpp has what gets rows and pages, plan_prompts.cpp whose prompt is next and how long
// the step may last. Internal to the scheduler.
#pragma once

#include "spear/scheduler/scheduler.h"

namespace spear {

class Scheduler::Planner {
 public:
  Planner(const Scheduler& scheduler, double now, const StepCostModel& costs, ScheduledBatch& batch)
      : scheduler_(scheduler),
        options_(scheduler.options_),
        now_(now),
        costs_(costs),
        batch_(batch),
        headroom_(costs.headroom()),
        available_(scheduler.pool_.free_pages()),
        budget_(scheduler.options_.token_budget),
        logit_rows_(scheduler.options_.logit_rows),
        prompt_rows_(scheduler.options_.static_chunk > 0 ? scheduler.options_.static_chunk
                                                         : scheduler.options_.token_budget),
        alive_(scheduler.running_.size()) {}

  void run();

 private:
  struct Match {
    int64_t tokens = 0;
    int64_t pages_in_use = 0;  // of them, those that are not free: no page is needed for them
    bool copies_last = false;
  };

  Sequence& running(size_t i) const { return *scheduler_.running_[i]; }

  // plan.cpp
  int64_t pages_needed(const Sequence& s, int64_t rows) const;
  bool preempt_after(size_t i, bool decoding_too);
  void add(Sequence& s, int64_t rows, int64_t drafts, int64_t context);
  void decode(size_t i);
  void prefill(size_t i);
  Match match(const Sequence& s) const;
  bool start(Sequence& s);
  int64_t promised_pages() const;

  // plan_prompts.cpp
  void collect_prompts();
  void order_prompts_and_level();
  int64_t order_at(int32_t level);
  int64_t chunk(const Sequence& s, int64_t context) const;
  int64_t rows_in_time(int64_t most, int64_t context) const;
  bool has_capacity(const Sequence& s) const;
  int64_t least_chunk() const;

  const Scheduler& scheduler_;
  const SchedulerOptions& options_;
  double now_;
  const StepCostModel& costs_;
  ScheduledBatch& batch_;
  double headroom_;
  int64_t available_;
  int64_t budget_;
  int64_t logit_rows_;
  int64_t prompt_rows_;            // that the step may still have
  size_t alive_;                   // running sequences that are not preempted: a head of the list
  double tightest_ = kNoDeadline;  // when the next token is due
  double interval_ = kNoDeadline;  // the tightest inter-token objective of those that run
  int64_t places_ = 0;             // answers that may still start
  int64_t preempted_ = 0;          // that wait
};

void count_rows(StepShape& shape, bool decoding, int64_t rows, int64_t context);

}  // namespace spear
