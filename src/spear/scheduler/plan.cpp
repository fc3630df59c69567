// The policy: what a step holds.
#include <algorithm>

#include "spear/base/check.h"
#include "spear/scheduler/planner.h"

namespace spear {

void count_rows(StepShape& shape, bool decoding, int64_t rows, int64_t context) {
  if (decoding) {
    ++shape.decode_sequences;
    shape.decode_rows += rows;
    shape.context_tokens += context + rows;
  } else {
    shape.prefill_tokens += rows;
    shape.prefill_pairs += rows * context + rows * (rows + 1) / 2;
  }
}

// Those that wait start in order; the first that does not fit holds the others back, so that it
// comes to its turn.
void Scheduler::Planner::run() {
  batch_.planned.assign(alive_, 0);
  for (size_t i = 0; i < alive_; ++i)
    if (running(i).decoding()) decode(i);
  places_ = options_.max_running;
  for (size_t i = 0; i < alive_; ++i) {
    places_ -= 1 + running(i).siblings;
    interval_ = std::min(interval_, running(i).itl_objective);
  }
  preempted_ = std::ssize(scheduler_.waiting_) -
               std::ranges::count(scheduler_.waiting_, 0, &Sequence::preemptions);
  collect_prompts();
  order_prompts_and_level();
  bool may_start = true;
  for (const PromptPlace& place : batch_.prompts) {
    if (place.running >= 0) {
      if (place.running < static_cast<int64_t>(alive_)) prefill(static_cast<size_t>(place.running));
    } else if (may_start) {
      may_start = batch_.preempted.empty() && start(*place.sequence);
    }
  }
}

// Pages that `rows` rows more need, one that must be copied included.
int64_t Scheduler::Planner::pages_needed(const Sequence& s, int64_t rows) const {
  int64_t needed = scheduler_.pages_for(s.computed + rows) - std::ssize(s.pages);
  if (s.computed % options_.page_size != 0) {
    const int32_t page = s.pages[static_cast<size_t>(s.computed / options_.page_size)];
    const int32_t others =
        scheduler_.pool_.references(page) - batch_.dropped[static_cast<size_t>(page)];
    if (others > 1 || scheduler_.pool_.cached(page)) needed = std::max<int64_t>(needed, 0) + 1;
  }
  return std::max<int64_t>(needed, 0);
}

// The last by turn gives its pages back, if it comes after `i` and is not part of the step yet.
bool Scheduler::Planner::preempt_after(size_t i, bool decoding_too) {
  if (alive_ <= i + 1 || batch_.planned[alive_ - 1] > 0) return false;
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

void Scheduler::Planner::add(Sequence& s, int64_t rows, int64_t drafts, int64_t context) {
  const bool samples = context + rows - drafts == s.length();
  batch_.rows.push_back({&s, batch_.total_rows, rows, drafts, context, samples});
  batch_.total_rows += rows;
  budget_ -= rows;
  logit_rows_ -= s.wants_all_logits ? rows : drafts;
  if (!s.decoding()) prompt_rows_ -= rows;
  count_rows(batch_.shape, s.decoding(), rows, context);
}

void Scheduler::Planner::decode(size_t i) {
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
  batch_.planned[i] = 1 + drafts;
  tightest_ = std::min(tightest_, s.last_token + s.itl_objective);
}

void Scheduler::Planner::prefill(size_t i) {
  Sequence& s = running(i);
  int64_t rows = chunk(s, s.computed);
  if (rows == 0) return;
  while (pages_needed(s, 1) > available_)
    if (!preempt_after(i, false)) return;
  while (rows > 1 && pages_needed(s, rows) > available_) --rows;
  if (options_.fixed_shapes && rows != chunk(s, s.computed)) return;
  available_ -= pages_needed(s, rows);
  add(s, rows, 0, s.computed);
  batch_.planned[i] = rows;
}

// The longest cached prefix that leaves at least the last token to be computed.
Scheduler::Planner::Match Scheduler::Planner::match(const Sequence& s) const {
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

// False: it has to wait, and those after it with it.
bool Scheduler::Planner::start(Sequence& s) {
  // Only so many preempted ones may wait beside new ones: these first.
  if (s.preemptions == 0 && preempted_ >= options_.max_running) return true;
  if (places_ < 1 + s.siblings || !has_capacity(s)) return false;
  const Match found = match(s);
  const int64_t rows = chunk(s, found.tokens);
  const int64_t whole = std::min(s.length() + 1, s.max_tokens);
  const int64_t needed = scheduler_.pages_for(whole) - found.pages_in_use;
  if (rows == 0 || needed > available_ - promised_pages()) return false;
  places_ -= 1 + s.siblings;
  interval_ = std::min(interval_, s.itl_objective);
  available_ -= needed;
  if (s.preemptions > 0) --preempted_;
  batch_.started.push_back({&s, found.tokens, found.copies_last});
  add(s, rows, 0, found.tokens);
  return true;
}

// What running prompts will still take beyond this step.
int64_t Scheduler::Planner::promised_pages() const {
  int64_t promised = 0;
  for (size_t i = 0; i < alive_; ++i) {
    const Sequence& s = running(i);
    if (s.decoding()) continue;
    const int64_t whole = scheduler_.pages_for(std::min(s.length() + 1, s.max_tokens));
    const int64_t had = scheduler_.pages_for(s.computed + batch_.planned[i]);
    promised += std::max<int64_t>(whole - std::max(had, std::ssize(s.pages)), 0);
  }
  return promised;
}

void Scheduler::plan(double now, const StepCostModel& costs, ScheduledBatch& batch) const {
  batch.clear();
  Planner(*this, now, costs, batch).run();
}

}  // namespace spear
