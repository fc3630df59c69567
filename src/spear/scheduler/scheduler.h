// Decides what runs next. plan() is a pure function of the sequences, the pages, the costs and the
// clock; commit() does what a plan says to pages and states; completed() follows after the step.
// The policy (docs/scheduling.md): every decoding sequence, then as many rows of prompts as the
// token budget and the next token's deadline allow, prompts by turn (sequence.h) or so that as many
// as possible have their first token in time (prompt_order.h). A sequence that needs a page when
// none is free takes those of the last by turn, which is computed again later. Nothing is allocated
// after construction. One thread.
//
// New sequences start only while fewer than max_running preempted ones wait, so that never more
// than twice max_running have started and not ended. Progress: a sequence is only accepted if it
// fits into all pages together (fits()), and the first in order is never preempted, so it always
// advances; the others follow when it has finished.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/scheduler/block_pool.h"
#include "spear/scheduler/cost_model.h"
#include "spear/scheduler/prefix_cache.h"
#include "spear/scheduler/prompt_order.h"
#include "spear/scheduler/sequence.h"

namespace spear {

// Of those that wait, this many by turn are looked at when a step is planned.
inline constexpr int64_t kPromptsLookedAt = 128;

struct SchedulerOptions {
  int32_t pages = 0;
  int64_t page_size = 64;
  int32_t max_running = 32;
  int32_t max_waiting = 1024;  // that have not started; preempted ones wait beside them
  int64_t token_budget = 512;  // rows of a step; at least max_running + page_size
  int64_t logit_rows = 64;     // rows with logits in a step, beside one for each sequence
  int64_t max_draft = 0;       // longest Sequence::draft
  // Prompts run in chunks of exactly one page that start at page borders, and a preempted answer is
  // computed again one token a step: the shape of every product is the sequence's own affair.
  bool fixed_shapes = false;
  // Seconds by which a step of priority, or having no objective, moves a request's turn; and after
  // which a late prompt is no longer passed over.
  double patience = 10;
  // Rows of prompts in every step, objectives or not, first come first served: what schedulers
  // without a cost model do, for comparison. 0: objectives decide.
  int64_t static_chunk = 0;
  int32_t max_level = 0;  // how far compensators may be switched off under load; 0: never
};

// Rows of one sequence in a step.
struct ScheduledRows {
  Sequence* sequence = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;  // tokens [context, context + rows - drafts) and then the drafts
  int64_t drafts = 0;
  int64_t context = 0;   // tokens before these rows
  bool samples = false;  // its last row (and each draft's) chooses a token
};

// A waiting sequence that starts on pages of the prefix cache.
struct ScheduledStart {
  Sequence* sequence = nullptr;
  int64_t cached_tokens = 0;
  bool copies_last_page = false;  // the last cached page is written to, so it is copied
};

struct PageCopy {
  int32_t from = 0, to = 0;
};

struct ScheduledBatch {
  std::vector<Sequence*> preempted;
  std::vector<ScheduledStart> started;
  std::vector<ScheduledRows> rows;
  int64_t total_rows = 0;
  StepShape shape;
  // Filled by commit(): to be done before the step, in this order.
  std::vector<PageCopy> copies;

  explicit ScheduledBatch(const SchedulerOptions& options);
  void clear();
  [[nodiscard]] bool empty() const { return rows.empty(); }
  // The workspace of plan(): prompts in the order that they are served in, what running sequences
  // got, and pages that preemptions would give back.
  std::vector<PromptPlace> prompts;
  std::vector<int32_t> kept;
  std::vector<int64_t> planned;  // [running] rows
  std::vector<int32_t> dropped;  // [pages] references given up
  std::vector<int32_t> touched;  // pages whose count above is not zero
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  [[nodiscard]] const SchedulerOptions& options() const { return options_; }
  // Whether the longest that the sequence can become, with its siblings' own pages, ever fits.
  [[nodiscard]] bool fits(const Sequence& sequence) const;

  // Queues a new sequence that fits; false: the queue is full. The sequence must outlive its stay.
  bool add(Sequence& sequence);
  // `child`, a copy of a running parent's tokens and counts, joins it and shares its pages.
  void fork(const Sequence& parent, Sequence& child);
  // Ends a sequence in any state; its pages are given back.
  void remove(Sequence& sequence);

  void plan(double now, const StepCostModel& costs, ScheduledBatch& batch) const;
  void commit(ScheduledBatch& batch);
  // `tokens` rows of the sequence now stand in its pages (drafts that were not taken don't count).
  void completed(Sequence& sequence, int64_t tokens);

  [[nodiscard]] std::span<Sequence* const> waiting() const { return waiting_; }
  [[nodiscard]] std::span<Sequence* const> running() const { return running_; }
  [[nodiscard]] const BlockPool& pool() const { return pool_; }
  [[nodiscard]] const PrefixCache& prefixes() const { return prefixes_; }
  // Free pages that hold a prefix.
  [[nodiscard]] int32_t cached_free_pages() const { return pool_.free_cached_pages(); }
  [[nodiscard]] int64_t prefix_queries() const { return prefix_queries_; }  // tokens looked up
  [[nodiscard]] int64_t prefix_hits() const { return prefix_hits_; }        // tokens found
  [[nodiscard]] int64_t preemptions() const { return preemptions_; }

  // Broken promises as a sentence, nullptr: none. No page leaked or held twice, tables as long as
  // what was computed, every list in order.
  [[nodiscard]] const char* check() const;

 private:
  class Planner;

  [[nodiscard]] int64_t pages_for(int64_t tokens) const {
    return (tokens + options_.page_size - 1) / options_.page_size;
  }
  int32_t take_page();
  void drop_pages(Sequence& sequence, size_t keep);
  void start(const ScheduledStart& start, ScheduledBatch& batch);
  void make_room(const ScheduledRows& rows, ScheduledBatch& batch);
  void insert_in_order(std::vector<Sequence*>& list, Sequence& sequence);
  [[nodiscard]] int64_t cacheable_tokens(const Sequence& sequence) const;

  SchedulerOptions options_;
  BlockPool pool_;
  PrefixCache prefixes_;
  std::vector<Sequence*> waiting_, running_;  // by runs_before()
  int64_t prefix_queries_ = 0, prefix_hits_ = 0, preemptions_ = 0;
};

}  // namespace spear
