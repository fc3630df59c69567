#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "scheduler/scheduler_harness.h"

namespace spear {
namespace {

using test::SchedulerHarness;

// Sequences with shared heads, forks, drafts and removals over a pool that holds about three of
// them: every one ends, and every page comes back.
class Soak {
 public:
  Soak(const SchedulerOptions& options, uint64_t seed)
      : options_(options), h(options, costs()), rng_(seed) {
    h.right_drafts = [this](const ScheduledRows&) { return static_cast<int64_t>(rng_.below(4)); };
  }

  void run(int sequences) {
    for (int step = 0; added < sequences || busy(); ++step) {
      ASSERT_LT(step, 400 * sequences) << "no progress";
      h.now += 1e-3;
      if (added < sequences && rng_.below(3) == 0) add();
      guess();
      h.step();
      if (rng_.below(10) == 0) remove_one();
      if (rng_.below(20) == 0) fork_one();
      h.check();
      if (testing::Test::HasFatalFailure()) return;
    }
  }

  int added = 0, removed = 0, forked = 0;

 private:
  static LinearCosts costs() {
    LinearCosts c;
    c.step = 1e-3, c.decode_row = 2e-4, c.prefill_token = 2e-4;
    return c;
  }
  bool busy() const { return !h.scheduler.running().empty() || !h.scheduler.waiting().empty(); }

  void add() {
    std::vector<int32_t> prompt;
    const auto head = static_cast<int32_t>(rng_.below(3));  // three families of prompts
    const uint32_t length = 1 + rng_.below(40);
    for (uint32_t i = 0; i < length; ++i)
      prompt.push_back(head * 100 + (rng_.below(50) == 0 ? 7 : static_cast<int32_t>(i)));
    Sequence& s = h.make(prompt, 1 + rng_.below(30), static_cast<int32_t>(rng_.below(2)));
    s.cache_salt = rng_.below(2);
    s.wants_all_logits = rng_.below(10) == 0;
    if (rng_.below(2) == 0) s.ttft_deadline = h.now + 0.1 * rng_.uniform();
    if (rng_.below(3) == 0) s.itl_objective = 2e-3 + 1e-2 * rng_.uniform();
    if (h.scheduler.add(s)) ++added;
  }

  void guess() {
    for (Sequence* s : h.scheduler.running()) {
      s->draft.clear();
      if (!s->decoding() || options_.max_draft == 0) continue;
      for (uint32_t d = rng_.below(static_cast<uint32_t>(options_.max_draft) + 1); d > 0; --d)
        s->draft.push_back(1);
    }
  }

  void remove_one() {
    const auto from = rng_.below(2) == 0 ? h.scheduler.running() : h.scheduler.waiting();
    if (from.empty()) return;
    h.scheduler.remove(*from[rng_.below(static_cast<uint32_t>(from.size()))]);
    ++removed;
  }

  void fork_one() {
    if (std::ssize(h.scheduler.running()) >= options_.max_running) return;
    for (Sequence* parent : h.scheduler.running()) {
      if (!parent->decoding()) continue;
      Sequence& child = h.make({}, parent->max_tokens);
      child.tokens = parent->tokens;
      child.prompt_tokens = parent->prompt_tokens;
      child.max_tokens = parent->max_tokens;
      child.cache_salt = parent->cache_salt;
      h.scheduler.fork(*parent, child);
      ++forked;
      return;
    }
  }

  SchedulerOptions options_;

 public:
  SchedulerHarness h;

 private:
  Rng rng_;
};

void expect_all_ended(Soak& soak, int32_t pages) {
  EXPECT_GT(soak.removed, 100);
  EXPECT_GT(soak.forked, 20);
  EXPECT_GT(soak.h.scheduler.preemptions(), 100);
  EXPECT_GT(soak.h.scheduler.prefix_hits(), 1000);
  EXPECT_EQ(soak.h.scheduler.pool().free_pages(), pages);
}

constexpr SchedulerOptions kTight = {.pages = 24,
                                     .page_size = 4,
                                     .max_running = 6,
                                     .max_waiting = 12,
                                     .token_budget = 24,
                                     .logit_rows = 8,
                                     .max_draft = 3};

TEST(SchedulerSoak, EndsWithEveryPageFree) {
  Soak soak(kTight, 1);
  soak.run(3000);
  expect_all_ended(soak, kTight.pages);
}

TEST(SchedulerSoak, EndsWithEveryPageFreeUnderFixedShapes) {
  SchedulerOptions options = kTight;
  options.max_draft = 0;
  options.fixed_shapes = true;
  Soak soak(options, 2);
  soak.run(2000);
  expect_all_ended(soak, options.pages);
}

}  // namespace
}  // namespace spear
