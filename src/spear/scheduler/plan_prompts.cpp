// Whose prompt is next, how many of its rows are in time, and which compensators run.
#include <algorithm>

#include "spear/scheduler/forecast.h"
#include "spear/scheduler/planner.h"

namespace spear {

// Running prompts and the first of those that wait, by turn.
void Scheduler::Planner::collect_prompts() {
  const auto& waiting = scheduler_.waiting_;
  const size_t looked_at = std::min(waiting.size(), static_cast<size_t>(kPromptsLookedAt));
  size_t next = 0;
  const auto add_place = [&](Sequence& s, int64_t running) {
    const bool has_objective = s.ttft_deadline != kNoDeadline;
    const double expected = has_objective ? s.ttft_deadline : s.arrival + options_.patience;
    // A first token that was given out needs no deadline: the prompt is computed again.
    const bool answered = s.length() > s.prompt_tokens;
    batch_.prompts.push_back({.sequence = &s,
                              .running = running,
                              .due = answered ? kNoDeadline : s.ttft_deadline,
                              .fixed = answered || now_ > expected + options_.patience});
  };
  for (size_t i = 0; i < alive_; ++i) {
    Sequence& s = running(i);
    if (s.decoding()) continue;
    while (next < looked_at && runs_before(*waiting[next], s)) add_place(*waiting[next++], -1);
    add_place(s, static_cast<int64_t>(i));
  }
  while (next < looked_at) add_place(*waiting[next++], -1);
}

// Puts the prompts in order as they would run at `level`; how many would be late.
int64_t Scheduler::Planner::order_at(int32_t level) {
  StepShape steady = batch_.shape;
  steady.level = level;
  const double row = prompt_row_seconds(options_, costs_, steady, interval_);
  for (PromptPlace& p : batch_.prompts)
    p.seconds = row * static_cast<double>(p.sequence->pending());
  return order_prompts(now_, batch_.prompts, batch_.kept);
}

// The fewest compensators off that bring all prompts and tokens in time, or the level that makes
// the fewest late. Whoever insists on all compensators has them, and all beside it.
void Scheduler::Planner::order_prompts_and_level() {
  if (options_.static_chunk > 0 || options_.fixed_shapes) return;
  const auto dated = [](const PromptPlace& p) { return p.due != kNoDeadline; };
  const bool ordered = std::ranges::any_of(batch_.prompts, dated);
  int32_t levels = std::min(options_.max_level + 1, costs_.levels());
  for (size_t i = 0; i < alive_; ++i)
    if (running(i).full_quality) levels = 1;
  for (const PromptPlace& p : batch_.prompts)
    if (p.sequence->full_quality) levels = 1;
  if (levels == 1) {
    if (ordered) order_at(0);
    return;
  }
  const auto by_turn = [](const PromptPlace& a, const PromptPlace& b) {
    return runs_before(*a.sequence, *b.sequence);
  };
  const auto trouble = [&](int32_t level) {
    StepShape steady = batch_.shape;
    steady.level = level;
    const int64_t late = ordered ? order_at(level) : 0;
    return late + (decodes_in_time(costs_, steady, interval_) ? 0 : 1);
  };
  int64_t least = trouble(0);
  int32_t best = 0;
  for (int32_t level = 1; least > 0 && level < levels; ++level) {
    std::ranges::sort(batch_.prompts, by_turn);
    const int64_t found = trouble(level);
    if (found < least) least = found, best = level;
  }
  batch_.shape.level = best;
  if (!ordered) return;
  std::ranges::sort(batch_.prompts, by_turn);
  order_at(best);
}

// Rows of a prompt that the budget, the shape rule and the objective of those who decode allow.
int64_t Scheduler::Planner::chunk(const Sequence& s, int64_t context) const {
  int64_t rows = std::min({s.length() - context, budget_, std::max<int64_t>(prompt_rows_, 0)});
  if (s.wants_all_logits) rows = std::min(rows, logit_rows_);
  if (options_.fixed_shapes) {
    const int64_t whole =
        context < s.prompt_tokens
            ? std::min(options_.page_size - context % options_.page_size, s.prompt_tokens - context)
            : 1;
    const bool logits_fit = !s.wants_all_logits || whole <= logit_rows_;
    return whole <= budget_ && logits_fit ? whole : 0;
  }
  return std::min(rows, std::max(rows_in_time(rows, context), least_chunk()));
}

int64_t Scheduler::Planner::least_chunk() const {
  return batch_.shape.prefill_tokens == 0 ? kLeastChunk : 0;
}

// The most rows with which the step still ends before the tightest next token is due.
int64_t Scheduler::Planner::rows_in_time(int64_t most, int64_t context) const {
  const auto in_time = [&](int64_t rows) {
    StepShape shape = batch_.shape;
    count_rows(shape, false, rows, context);
    return now_ + headroom_ * costs_.seconds(shape) <= tightest_;
  };
  if (options_.static_chunk > 0 || tightest_ == kNoDeadline || in_time(most)) return most;
  int64_t low = 0, high = most;  // low rows are in time (or none are), high rows are not
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (in_time(middle) ? low : high) = middle;
  }
  return low;
}

// Whether those that run, and this one with them, can all decode within the tightest objective.
bool Scheduler::Planner::has_capacity(const Sequence& s) const {
  const double interval = std::min(interval_, s.itl_objective);
  if (options_.static_chunk > 0 || interval == kNoDeadline) return true;
  StepShape steady;
  steady.level = batch_.shape.level;
  const auto answers = [&](const Sequence& one) {
    for (int32_t c = 0; c <= one.siblings; ++c) count_rows(steady, true, 1, one.length());
  };
  for (size_t i = 0; i < alive_; ++i) answers(running(i));
  for (const ScheduledStart& started : batch_.started) answers(*started.sequence);
  if (steady.decode_rows == 0) return true;
  answers(s);
  return decodes_in_time(costs_, steady, interval);
}

}  // namespace spear
