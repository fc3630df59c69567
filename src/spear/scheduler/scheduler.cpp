#include "spear/scheduler/scheduler.h"

#include <algorithm>

#include "spear/base/check.h"

namespace spear {

ScheduledBatch::ScheduledBatch(const SchedulerOptions& options) {
  const auto sequences = static_cast<size_t>(options.max_running);
  preempted.reserve(sequences);
  started.reserve(sequences);
  rows.reserve(sequences);
  copies.reserve(sequences);
  prompts.reserve(sequences + static_cast<size_t>(kPromptsLookedAt));
  kept.reserve(prompts.capacity());
  planned.reserve(sequences);
  dropped.assign(static_cast<size_t>(options.pages), 0);
  touched.reserve(static_cast<size_t>(options.pages));
}

void ScheduledBatch::clear() {
  preempted.clear();
  started.clear();
  rows.clear();
  copies.clear();
  prompts.clear();
  planned.clear();
  total_rows = 0;
  shape = {};
  for (const int32_t page : touched) dropped[static_cast<size_t>(page)] = 0;
  touched.clear();
}

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), pool_(options.pages), prefixes_(options.pages, options.page_size) {
  expects(options.page_size > 0 && options.max_running > 0 && options.logit_rows > 0);
  expects(options.token_budget >= options.max_running + options.page_size);
  expects(options.patience > 0 && options.static_chunk >= 0 && options.max_level >= 0);
  waiting_.reserve(static_cast<size_t>(options.max_waiting + 2 * options.max_running));
  running_.reserve(static_cast<size_t>(options.max_running));
}

bool Scheduler::fits(const Sequence& s) const {
  return pages_for(s.max_tokens) <= options_.pages && s.siblings < options_.max_running;
}

void Scheduler::insert_in_order(std::vector<Sequence*>& list, Sequence& sequence) {
  const auto before = [](const Sequence* a, const Sequence* b) { return runs_before(*a, *b); };
  list.insert(std::upper_bound(list.begin(), list.end(), &sequence, before), &sequence);
}

bool Scheduler::add(Sequence& s) {
  expects(s.state == SequenceState::kNew && s.prompt_tokens > 0 && fits(s));
  expects(s.length() == s.prompt_tokens && s.max_tokens >= s.prompt_tokens);
  const auto fresh = std::ranges::count(waiting_, 0, &Sequence::preemptions);
  if (fresh >= options_.max_waiting) return false;
  s.state = SequenceState::kWaiting;
  s.turn = turn_of(s, options_.patience);
  insert_in_order(waiting_, s);
  return true;
}

void Scheduler::fork(const Sequence& parent, Sequence& child) {
  expects(parent.state == SequenceState::kRunning && child.state == SequenceState::kNew);
  expects(std::ssize(running_) < options_.max_running);
  expects(child.length() >= parent.computed);
  child.state = SequenceState::kRunning;
  child.turn = parent.turn;
  child.degraded = parent.degraded;
  child.computed = parent.computed;
  child.pages.assign(parent.pages.begin(),
                     parent.pages.begin() + static_cast<int64_t>(pages_for(parent.computed)));
  child.nodes = parent.nodes;
  for (const int32_t page : child.pages) pool_.share(page);
  insert_in_order(running_, child);
}

void Scheduler::remove(Sequence& s) {
  if (s.state == SequenceState::kRunning) {
    drop_pages(s, 0);
    std::erase(running_, &s);
  } else if (s.state == SequenceState::kWaiting) {
    std::erase(waiting_, &s);
  }
  s.state = SequenceState::kFinished;
}

// The last pages go first: the head of a prefix, of use to more, is then forgotten last.
void Scheduler::drop_pages(Sequence& s, size_t keep) {
  while (s.pages.size() > keep) {
    pool_.release(s.pages.back());
    s.pages.pop_back();
  }
  s.nodes.resize(std::min(s.nodes.size(), keep));
}

int32_t Scheduler::take_page() {
  bool was_cached = false;
  const int32_t page = pool_.take(was_cached);
  expects(page >= 0);  // plan() counted
  if (was_cached) prefixes_.forget(page);
  return page;
}

// Shares the pages that plan() found.
void Scheduler::start(const ScheduledStart& start, ScheduledBatch&) {
  Sequence& s = *start.sequence;
  std::erase(waiting_, &s);
  s.state = SequenceState::kRunning;
  insert_in_order(running_, s);
  const int64_t pages = pages_for(start.cached_tokens);
  uint64_t before = PrefixCache::root(s.cache_salt);
  for (int64_t p = 0; p < pages; ++p) {
    const auto tokens = std::span<const int32_t>(s.tokens).subspan(
        static_cast<size_t>(p * options_.page_size), static_cast<size_t>(options_.page_size));
    const PrefixCache::Found found = prefixes_.find(before, tokens);
    expects(found.node != 0);
    pool_.share(found.page);
    s.pages.push_back(found.page);
    s.nodes.push_back(found.node);
    before = found.node;
  }
  s.computed = start.cached_tokens;
  if (s.preemptions == 0) s.cached_tokens = start.cached_tokens;
  if (s.use_prefix_cache) {
    prefix_queries_ += s.length();
    prefix_hits_ += start.cached_tokens;
  }
}

// Pages for the rows: a page that others see too is copied before it is written to.
void Scheduler::make_room(const ScheduledRows& rows, ScheduledBatch& batch) {
  Sequence& s = *rows.sequence;
  if (rows.context % options_.page_size != 0) {
    const auto at = static_cast<size_t>(rows.context / options_.page_size);
    const int32_t page = s.pages[at];
    if (pool_.references(page) > 1 || pool_.cached(page)) {
      const int32_t own = take_page();
      batch.copies.push_back({page, own});
      s.pages[at] = own;
      s.nodes.resize(std::min(s.nodes.size(), at));
      pool_.release(page);
    }
  }
  const int64_t needed = pages_for(rows.context + rows.rows);
  while (static_cast<int64_t>(s.pages.size()) < needed) s.pages.push_back(take_page());
}

void Scheduler::commit(ScheduledBatch& batch) {
  for (Sequence* s : batch.preempted) {
    drop_pages(*s, 0);
    s->computed = 0;
    s->degraded = false;
    s->draft.clear();
    s->state = SequenceState::kWaiting;
    ++s->preemptions;
    ++preemptions_;
    std::erase(running_, s);
    insert_in_order(waiting_, *s);
  }
  for (const ScheduledStart& s : batch.started) start(s, batch);
  for (const ScheduledRows& rows : batch.rows) {
    make_room(rows, batch);
    if (batch.shape.level > 0) rows.sequence->degraded = true;
  }
}

// What may be found by others: with fixed shapes only what was computed page by page; nothing from
// the first step on that ran without all compensators.
int64_t Scheduler::cacheable_tokens(const Sequence& s) const {
  if (s.degraded) return 0;
  return options_.fixed_shapes ? std::min(s.computed, s.prompt_tokens) : s.computed;
}

void Scheduler::completed(Sequence& s, int64_t tokens) {
  if (s.state != SequenceState::kRunning) return;
  s.computed += tokens;
  expects(s.computed <= s.length() && s.computed <= std::ssize(s.pages) * options_.page_size);
  const int64_t full = cacheable_tokens(s) / options_.page_size;
  for (auto p = std::ssize(s.nodes); p < full; ++p) {
    const uint64_t before = s.nodes.empty() ? PrefixCache::root(s.cache_salt) : s.nodes.back();
    const auto tokens_of_page = std::span<const int32_t>(s.tokens).subspan(
        static_cast<size_t>(p * options_.page_size), static_cast<size_t>(options_.page_size));
    const int32_t page = s.pages[static_cast<size_t>(p)];
    s.nodes.push_back(prefixes_.insert(before, tokens_of_page, page));
    if (prefixes_.knows(page)) pool_.set_cached(page, true);
  }
}

const char* Scheduler::check() const {
  if (const char* wrong = pool_.check()) return wrong;
  if (const char* wrong = prefixes_.check()) return wrong;
  std::vector<int32_t> held(static_cast<size_t>(pool_.size()), 0);
  for (const Sequence* s : running_) {
    if (s->state != SequenceState::kRunning) return "a sequence that does not run is listed so";
    if (std::ssize(s->pages) < pages_for(s->computed)) return "a sequence lacks pages";
    if (s->computed > s->length()) return "more was computed than there is";
    for (const int32_t page : s->pages) ++held[static_cast<size_t>(page)];
  }
  const auto preempted =
      std::ssize(waiting_) - std::ranges::count(waiting_, 0, &Sequence::preemptions);
  if (std::ssize(running_) > options_.max_running || preempted > 2 * options_.max_running)
    return "more sequences have started than there are places";
  for (const Sequence* s : waiting_)
    if (s->state != SequenceState::kWaiting || !s->pages.empty() || s->computed != 0)
      return "a waiting sequence holds something";
  for (int32_t page = 0; page < pool_.size(); ++page) {
    if (held[static_cast<size_t>(page)] != pool_.references(page))
      return "the references of a page are not those that sequences hold";
    if (pool_.cached(page) != prefixes_.knows(page))
      return "a page is cached without a prefix, or the other way round";
  }
  const auto sorted = [](const std::vector<Sequence*>& list) {
    return std::is_sorted(list.begin(), list.end(),
                          [](const Sequence* a, const Sequence* b) { return runs_before(*a, *b); });
  };
  return sorted(waiting_) && sorted(running_) ? nullptr : "a list of sequences is out of order";
}

}  // namespace spear
