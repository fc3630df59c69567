#include "spear/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include "scheduler/scheduler_harness.h"

namespace spear {
namespace {

using test::counting;
using test::SchedulerHarness;

SchedulerOptions small(int32_t pages = 16) {
  return {.pages = pages, .page_size = 4, .max_running = 4, .max_waiting = 8, .token_budget = 16};
}

void run_out(SchedulerHarness& h) {
  while (h.step()) {
  }
}

TEST(Scheduler, StartsOnThePagesOfAnEarlierPrompt) {
  SchedulerHarness h(small());
  h.scheduler.add(h.make(counting(9), 1));
  run_out(h);
  Sequence& again = h.make(counting(9), 1);
  h.scheduler.add(again);
  h.step();
  EXPECT_EQ(again.cached_tokens, 8);
  EXPECT_EQ(h.batch.rows[0].rows, 1);
  EXPECT_EQ(h.scheduler.prefix_hits(), 8);
}

TEST(Scheduler, CopiesTheLastPageOfAPromptThatIsCachedWhole) {
  SchedulerHarness h(small());
  h.scheduler.add(h.make(counting(8), 1));
  run_out(h);
  Sequence& again = h.make(counting(8), 1);
  h.scheduler.add(again);
  h.step();
  EXPECT_EQ(again.cached_tokens, 7) << "the last token is computed: its logits are wanted";
  ASSERT_EQ(h.batch.copies.size(), 1U);
  EXPECT_NE(h.batch.copies[0].from, h.batch.copies[0].to);
}

TEST(Scheduler, SharesPagesBetweenSequencesThatRunTogether) {
  SchedulerHarness h(small());
  Sequence& a = h.make(counting(9), 8);
  h.scheduler.add(a);
  h.step();
  Sequence& b = h.make(counting(9), 8);
  h.scheduler.add(b);
  h.step();
  EXPECT_EQ(a.pages[0], b.pages[0]);
  EXPECT_EQ(a.pages[1], b.pages[1]);
  EXPECT_NE(a.pages[2], b.pages[2]);
  EXPECT_EQ(h.scheduler.pool().references(a.pages[0]), 2);
}

TEST(Scheduler, DoesNotShareAcrossSaltsNorForThoseWhoDeclined) {
  SchedulerHarness h(small());
  h.scheduler.add(h.make(counting(9), 1));
  run_out(h);
  Sequence& salted = h.make(counting(9), 1);
  salted.cache_salt = 7;
  Sequence& declined = h.make(counting(9), 1);
  declined.use_prefix_cache = false;
  h.scheduler.add(salted);
  h.scheduler.add(declined);
  run_out(h);
  EXPECT_EQ(salted.cached_tokens, 0);
  EXPECT_EQ(declined.cached_tokens, 0);
}

TEST(Scheduler, AForkSharesPagesAndCopiesTheOneItWritesTo) {
  SchedulerHarness h(small());
  Sequence& parent = h.make(counting(6), 4);
  parent.siblings = 1;
  h.scheduler.add(parent);
  h.step();
  Sequence& child = h.make(counting(6), 4);
  child.tokens.push_back(77);
  parent.siblings = 0;
  h.scheduler.fork(parent, child);
  h.check();
  EXPECT_EQ(parent.pages, child.pages);
  h.step();
  EXPECT_EQ(h.batch.copies.size(), 1U) << "the second to write finds itself alone";
  EXPECT_EQ(parent.pages[0], child.pages[0]);
  EXPECT_NE(parent.pages[1], child.pages[1]);
  run_out(h);
  EXPECT_EQ(h.scheduler.pool().free_pages(), h.scheduler.pool().size());
}

TEST(Scheduler, KeepsPlacesForSiblings) {
  SchedulerHarness h(small());
  Sequence& wide = h.make(counting(3), 2);
  wide.siblings = 3;
  h.scheduler.add(wide);
  h.scheduler.add(h.make(counting(3), 2));
  h.step();
  EXPECT_EQ(h.scheduler.running().size(), 1U);
  EXPECT_EQ(h.scheduler.waiting().size(), 1U);
}

TEST(Scheduler, RemovesASequenceInAnyStateAndGetsItsPagesBack) {
  SchedulerHarness h(small());
  Sequence& running = h.make(counting(20), 4);
  Sequence& waiting = h.make(counting(20), 4);
  Sequence& fresh = h.make(counting(20), 4);
  h.scheduler.add(running);
  h.step();
  h.scheduler.add(waiting);
  for (Sequence* s : {&running, &waiting, &fresh, &running}) h.scheduler.remove(*s);
  h.check();
  EXPECT_EQ(h.scheduler.pool().free_pages(), h.scheduler.pool().size());
  EXPECT_FALSE(h.step());
}

TEST(Scheduler, RefusesWhatNeverFitsAndWhatFindsTheQueueFull) {
  SchedulerHarness h(small(2));
  EXPECT_FALSE(h.scheduler.fits(h.make(counting(8), 1)));
  EXPECT_TRUE(h.scheduler.fits(h.make(counting(7), 1)));
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(h.scheduler.add(h.make(counting(2), 1)));
  EXPECT_FALSE(h.scheduler.add(h.make(counting(2), 1)));
}

// A prompt that is cached whole in a pool that it fills must still find the page for its copy.
TEST(Scheduler, ACachedPromptThatFillsThePoolStillRuns) {
  SchedulerHarness h(small(3));
  for (int i = 0; i < 3; ++i) {
    h.scheduler.add(h.make(counting(8), 4));
    run_out(h);
    EXPECT_TRUE(h.scheduler.running().empty());
    EXPECT_TRUE(h.scheduler.waiting().empty());
  }
}

TEST(Scheduler, GuessesTakeRowsThatAreLeftAndNoOnesPage) {
  SchedulerOptions options = small(4);
  options.max_draft = 3;
  SchedulerHarness h(options);
  Sequence& s = h.make(counting(4), 8);
  h.scheduler.add(s);
  h.step();
  s.draft = {1, 2, 3};
  h.right_drafts = [](const ScheduledRows&) { return int64_t{2}; };
  h.step();
  EXPECT_EQ(h.batch.rows[0].rows, 4);
  EXPECT_EQ(s.length(), 4 + 1 + 3);
  EXPECT_EQ(s.computed, s.length() - 1);
  h.scheduler.add(h.make(counting(7, 50), 1));
  s.draft.clear();
  h.step();
  s.draft = {1, 2, 3};
  h.scheduler.plan(h.now, LinearCosts{}, h.batch);
  EXPECT_TRUE(h.batch.preempted.empty());
}

TEST(Scheduler, AnObjectiveBoundsThePromptRowsOfAStep) {
  LinearCosts costs;
  costs.step = 0.010;
  costs.prefill_token = 0.001;
  SchedulerOptions options = small(64);
  options.token_budget = 100;
  SchedulerHarness h(options, costs);
  Sequence& talker = h.make(counting(3), 20);
  talker.itl_objective = 0.0505;
  h.scheduler.add(talker);
  h.step();
  h.scheduler.add(h.make(counting(90, 500), 1));
  h.step();
  ASSERT_EQ(h.batch.rows.size(), 2U);
  EXPECT_EQ(h.batch.rows[1].rows, 40) << "10 ms and 40 rows of 1 ms are 50 ms";
  talker.itl_objective = 0.001;
  h.step();
  EXPECT_EQ(h.batch.rows[1].rows, 16) << "an objective nothing can meet does not starve prompts";
}

TEST(Scheduler, FixedShapesRunPromptsPageByPageAndCacheOnlyThose) {
  SchedulerOptions options = small();
  options.fixed_shapes = true;
  SchedulerHarness h(options);
  h.scheduler.add(h.make(counting(10), 6));
  std::vector<int64_t> rows;
  while (h.step()) rows.push_back(h.batch.rows[0].rows);
  EXPECT_EQ(rows, (std::vector<int64_t>{4, 4, 2, 1, 1, 1, 1, 1}));
  EXPECT_EQ(h.scheduler.prefixes().entries(), 2) << "the third page was filled token by token";
}

TEST(Scheduler, FixedShapesComputeAPreemptedAnswerAgainTokenByToken) {
  SchedulerOptions options = small(4);
  options.fixed_shapes = true;
  SchedulerHarness h(options);
  Sequence& first = h.make(counting(4), 12);
  Sequence& second = h.make(counting(4, 90), 8);
  h.scheduler.add(first);
  h.scheduler.add(second);
  bool again = false;
  while (h.step())
    for (const ScheduledRows& rows : h.batch.rows)
      if (rows.sequence == &second && second.preemptions > 0 && rows.context >= 4) {
        EXPECT_EQ(rows.rows, 1);
        again = again || !rows.samples;
      }
  EXPECT_GT(second.preemptions, 0);
  EXPECT_TRUE(again);
}

}  // namespace
}  // namespace spear
