// The policy: what a step holds. Reads the scheduler, writes the batch, changes nothing else.
#include <algorithm>

#include "spear/base/check.h"
#include "spear/scheduler/scheduler.h"

namespace spear {
namespace {

// Under an objective that no step can meet prompts still advance by this many rows a step.
constexpr int64_t kLeastChunk = 16;

}  // namespace

class Scheduler::Planner {
 public:
  Planner(const Scheduler& scheduler, double now, const StepCostModel& costs, ScheduledBatch& batch)
      : scheduler_(scheduler),
        options_(scheduler.options_),
        now_(now),
        costs_(costs),
        batch_(batch),
        available_(scheduler.pool_.free_pages()),
        budget_(scheduler.options_.token_budget),
        logit_rows_(scheduler.options_.logit_rows),
        alive_(scheduler.running_.size()) {}

  void run() {
    for (size_t i = 0; i < alive_; ++i)
      if (running(i).decoding()) decode(i);
    for (size_t i = 0; i < alive_; ++i)
      if (!running(i).decoding()) prefill(i);
    if (batch_.preempted.empty()) start_waiting();
  }

 private:
  Sequence& running(size_t i) { return *scheduler_.running_[i]; }

  // Pages that `rows` rows more need, one that must be copied included.
  int64_t pages_needed(const Sequence& s, int64_t rows) const {
    int64_t needed = scheduler_.pages_for(s.computed + rows) - std::ssize(s.pages);
    if (s.computed % options_.page_size != 0) {
      const int32_t page = s.pages[static_cast<size_t>(s.computed / options_.page_size)];
      const int32_t others =
          scheduler_.pool_.references(page) - batch_.dropped[static_cast<size_t>(page)];
      if (others > 1 || scheduler_.pool_.cached(page)) needed = std::max<int64_t>(needed, 0) + 1;
    }
    return std::max<int64_t>(needed, 0);
  }

  // The last in order gives its pages back, if it comes after `i` and is not part of the step yet.
  bool preempt_after(size_t i, bool decoding_too) {
    if (alive_ <= i + 1) return false;
    Sequence& victim = running(alive_ - 1);
    if (victim.decoding() && !decoding_too) return false;
    --alive_;
    batch_.preempted.push_back(&victim);
    for (const int32_t page : victim.pages) {
      int32_t& dropped = batch_.dropped[static_cast<size_t>(page)];
      if (dropped++ == 0) batch_.touched.push_back(page);
      if (dropped == scheduler_.pool_.references(page)) ++available_;
    }
    return true;
  }

  void add(Sequence& s, int64_t rows, int64_t drafts, int64_t context) {
    const bool samples = context + rows - drafts == s.length();
    batch_.rows.push_back({&s, batch_.total_rows, rows, drafts, context, samples});
    batch_.total_rows += rows;
    budget_ -= rows;
    logit_rows_ -= s.wants_all_logits ? rows : drafts;
    count(batch_.shape, s.decoding(), rows, context);
  }

  static void count(StepShape& shape, bool decoding, int64_t rows, int64_t context) {
    if (decoding) {
      ++shape.decode_sequences;
      shape.decode_rows += rows;
      shape.context_tokens += context + rows;
    } else {
      shape.prefill_tokens += rows;
      shape.prefill_pairs += rows * context + rows * (rows + 1) / 2;
    }
  }

  void decode(size_t i) {
    Sequence& s = running(i);
    while (pages_needed(s, 1) > available_)
      if (!preempt_after(i, true)) return;  // it waits: those before it will finish
    // Every other running sequence keeps its row; guesses take what is left, and no one's page.
    const auto others = static_cast<int64_t>(alive_ - i - 1);
    int64_t drafts = std::min(
        {std::ssize(s.draft), s.max_tokens - s.length() - 1, budget_ - 1 - others, logit_rows_});
    drafts = std::max<int64_t>(drafts, 0);
    while (drafts > 0 && pages_needed(s, 1 + drafts) > available_) --drafts;
    available_ -= pages_needed(s, 1 + drafts);
    add(s, 1 + drafts, drafts, s.computed);
    tightest_ = std::min(tightest_, s.last_token + s.itl_objective);
  }

  // Rows of a prompt that the budget, the shape rule and the objective of those who decode allow.
  int64_t chunk(const Sequence& s, int64_t context) const {
    int64_t rows = std::min(s.length() - context, budget_);
    if (s.wants_all_logits) rows = std::min(rows, logit_rows_);
    if (options_.fixed_shapes) {
      const int64_t whole = context < s.prompt_tokens
                                ? std::min(options_.page_size - context % options_.page_size,
                                           s.prompt_tokens - context)
                                : 1;
      const bool logits_fit = !s.wants_all_logits || whole <= logit_rows_;
      return whole <= budget_ && logits_fit ? whole : 0;
    }
    return std::min(rows, std::max(rows_in_time(rows, context), least_chunk()));
  }

  int64_t least_chunk() const { return batch_.shape.prefill_tokens == 0 ? kLeastChunk : 0; }

  // The most rows with which the step still ends before the tightest next token is due.
  int64_t rows_in_time(int64_t most, int64_t context) const {
    const auto in_time = [&](int64_t rows) {
      StepShape shape = batch_.shape;
      count(shape, false, rows, context);
      return now_ + costs_.seconds(shape) <= tightest_;
    };
    if (tightest_ == kNoDeadline || in_time(most)) return most;
    int64_t low = 0, high = most;  // low rows are in time (or none are), high rows are not
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (in_time(middle) ? low : high) = middle;
    }
    return low;
  }

  void prefill(size_t i) {
    Sequence& s = running(i);
    int64_t rows = chunk(s, s.computed);
    if (rows == 0) return;
    while (pages_needed(s, 1) > available_)
      if (!preempt_after(i, false)) return;
    while (rows > 1 && pages_needed(s, rows) > available_) --rows;
    if (options_.fixed_shapes && rows != chunk(s, s.computed)) return;
    available_ -= pages_needed(s, rows);
    add(s, rows, 0, s.computed);
  }

  struct Match {
    int64_t tokens = 0;
    int64_t pages_in_use = 0;  // of them, those that are not free: no page is needed for them
    bool copies_last = false;
  };

  // The longest cached prefix that leaves at least the last token to be computed.
  Match match(const Sequence& s) const {
    Match match;
    if (!s.use_prefix_cache || s.wants_all_logits) return match;
    const int64_t page_size = options_.page_size;
    const int64_t most =
        options_.fixed_shapes ? (s.prompt_tokens - 1) / page_size : s.length() / page_size;
    uint64_t before = PrefixCache::root(s.cache_salt);
    int64_t pages = 0;
    for (; pages < most; ++pages) {
      const auto tokens = std::span<const int32_t>(s.tokens).subspan(
          static_cast<size_t>(pages * page_size), static_cast<size_t>(page_size));
      const PrefixCache::Found found = scheduler_.prefixes_.find(before, tokens);
      if (found.node == 0) break;
      before = found.node;
      match.copies_last = (pages + 1) * page_size == s.length();
      if (scheduler_.pool_.references(found.page) > 0 && !match.copies_last) ++match.pages_in_use;
    }
    match.tokens = std::min(pages * page_size, s.length() - 1);
    return match;
  }

  // In order; the first that does not fit holds the others back, so that it comes to its turn.
  void start_waiting() {
    int64_t places = options_.max_running;
    int64_t promised = 0;  // pages that running prompts will still take
    for (size_t i = 0; i < alive_; ++i) {
      const Sequence& s = running(i);
      places -= 1 + s.siblings;
      if (!s.decoding()) promised += unplanned_pages(s);
    }
    auto preempted = std::ssize(scheduler_.waiting_) -
                     std::ranges::count(scheduler_.waiting_, 0, &Sequence::preemptions);
    for (Sequence* waiting : scheduler_.waiting_) {
      Sequence& s = *waiting;
      if (s.preemptions == 0 && preempted >= options_.max_running) continue;
      places -= 1 + s.siblings;
      if (places < 0) return;
      const Match found = match(s);
      const int64_t rows = chunk(s, found.tokens);
      const int64_t whole = std::min(s.length() + 1, s.max_tokens);
      const int64_t needed = scheduler_.pages_for(whole) - found.pages_in_use;
      if (rows == 0 || needed > available_ - promised) return;
      available_ -= needed;
      if (s.preemptions > 0) --preempted;
      batch_.started.push_back({&s, found.tokens, found.copies_last});
      add(s, rows, 0, found.tokens);
    }
  }

  // Of a running prompt, beyond what this step takes.
  int64_t unplanned_pages(const Sequence& s) const {
    int64_t rows = 0;
    for (const ScheduledRows& r : batch_.rows)
      if (r.sequence == &s) rows = r.rows;
    const int64_t whole = std::min(s.length() + 1, s.max_tokens);
    return std::max<int64_t>(
        scheduler_.pages_for(whole) -
            std::max<int64_t>(scheduler_.pages_for(s.computed + rows), std::ssize(s.pages)),
        0);
  }

  const Scheduler& scheduler_;
  const SchedulerOptions& options_;
  double now_;
  const StepCostModel& costs_;
  ScheduledBatch& batch_;
  int64_t available_;
  int64_t budget_;
  int64_t logit_rows_;
  size_t alive_;  // running sequences that are not preempted: a head of the list
  double tightest_ = kNoDeadline;
};

void Scheduler::plan(double now, const StepCostModel& costs, ScheduledBatch& batch) const {
  batch.clear();
  Planner(*this, now, costs, batch).run();
}

}  // namespace spear
