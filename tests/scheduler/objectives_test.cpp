// What objectives, priorities and levels do to a step.
#include <gtest/gtest.h>

#include "spear/scheduler/forecast.h"

#include "scheduler/scheduler_harness.h"

namespace spear {
namespace {

using test::counting;
using test::SchedulerHarness;

constexpr SchedulerOptions kRoom = {
    .pages = 512, .page_size = 4, .max_running = 8, .max_waiting = 64, .token_budget = 256};

LinearCosts costs() {
  LinearCosts c;
  c.step = 10e-3;
  c.decode_row = 1e-3;
  c.prefill_token = 1e-3;
  return c;
}

Sequence& ask(SchedulerHarness& h, int64_t prompt, int64_t answer, double ttft = 0, double itl = 0,
              int32_t priority = 0) {
  Sequence& s = h.make(counting(prompt, 1000 * (1 + static_cast<int32_t>(h.sequences.size()))),
                       answer, priority);
  if (ttft > 0) s.ttft_deadline = h.now + ttft;
  if (itl > 0) s.itl_objective = itl;
  EXPECT_TRUE(h.scheduler.add(s));
  return s;
}

TEST(Objectives, PromptsOnTimeGoBeforeOnesThatAreLateAnyway) {
  SchedulerHarness h(kRoom, costs());
  Sequence& late = ask(h, 400, 1, 0.1);
  Sequence& in_time = ask(h, 40, 1, 0.1);
  h.step();
  ASSERT_GE(h.batch.rows.size(), 1U);
  EXPECT_EQ(h.batch.rows[0].sequence, &in_time);
  EXPECT_EQ(h.batch.rows[0].rows, 40);
  EXPECT_NE(late.state, SequenceState::kFinished);
}

TEST(Objectives, AnAnswerStartsOnlyIfAllCanStillDecodeInTime) {
  SchedulerHarness h(kRoom, costs());
  // 10 ms and 1 ms a row, 85 % of 16 ms: three answers.
  for (int i = 0; i < 5; ++i) ask(h, 4, 20, 0, 16e-3);
  for (int i = 0; i < 12; ++i) {
    h.step();
    EXPECT_LE(h.scheduler.running().size(), 3U);
  }
  EXPECT_EQ(h.scheduler.running().size(), 3U);
}

TEST(Objectives, StaticChunksAreWhatTheySay) {
  SchedulerOptions options = kRoom;
  options.static_chunk = 32;
  SchedulerHarness h(options, costs());
  ask(h, 100, 4, 0.01, 1e-3);
  ask(h, 100, 4, 0.01, 1e-3);
  std::vector<int64_t> rows;
  while (h.step()) rows.push_back(h.batch.shape.prefill_tokens);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 32), 6);
  EXPECT_EQ(rows[6], 8);
}

// The rule of sequence.h, at its bound: requests of a higher priority, one after the other without
// end; the low one runs when those that arrived in time have.
TEST(Objectives, NobodyStarvesUnderEndlessHigherPriority) {
  SchedulerOptions options = kRoom;
  options.max_running = 1;
  options.token_budget = 64;
  options.patience = 5;
  SchedulerHarness h(options, costs());
  ask(h, 40, 1, 0, 0, 3);
  Sequence& low = ask(h, 40, 1);
  double served = -1;
  int64_t overtook = 0;
  for (int i = 0; i < 2000 && served < 0; ++i) {
    if (h.scheduler.waiting().size() < 4) ask(h, 40, 1, 0, 0, 3);
    h.step();
    if (low.state == SequenceState::kFinished) served = h.now;
    ++overtook;
  }
  ASSERT_GE(served, 0) << "it starves";
  // Those of 3 more priority that arrive within 3 · 5 s pass; one each 50 ms, and what is queued.
  EXPECT_GT(served, 10);
  EXPECT_LE(served, 3 * 5 + 5 * 0.06);
  EXPECT_GT(overtook, 200);
}

// The second rule: passed over while late, until `patience` after the deadline.
TEST(Objectives, ALatePromptIsPassedOverNoLongerThanThePatience) {
  SchedulerOptions options = kRoom;
  options.token_budget = 32;
  options.patience = 2;
  SchedulerHarness h(options, costs());
  Sequence& late = ask(h, 300, 1, 0.2);
  double served = -1;
  while (served < 0 && h.now < 30) {
    if (h.scheduler.waiting().size() < 6) ask(h, 20, 1, 0.3);
    h.step();
    if (late.state == SequenceState::kFinished) served = h.now;
  }
  ASSERT_GE(served, 0) << "it starves";
  EXPECT_GT(served, 1) << "others in time go first";
  EXPECT_LE(served, 0.2 + 2 + 300.0 / 22 * 0.042 + 0.2);
}

struct LevelCosts final : StepCostModel {
  double seconds(const StepShape& s) const override {
    const double row = s.level == 0 ? 2e-3 : s.level == 1 ? 1.5e-3 : 1e-3;
    return 1e-3 + row * static_cast<double>(s.decode_rows + s.prefill_tokens);
  }
  int32_t levels() const override { return 3; }
};

int32_t level_of(double ttft, bool insists, int32_t max_level = 2) {
  SchedulerOptions options = kRoom;
  options.max_level = max_level;
  SchedulerHarness h(options);
  Sequence& s = ask(h, 100, 2, ttft);
  s.full_quality = insists;
  h.scheduler.plan(0, LevelCosts(), h.batch);
  return h.batch.shape.level;
}

TEST(Objectives, CompensatorsGoOffOnlyAsFarAsItTakes) {
  EXPECT_EQ(level_of(0.3, false), 0);
  EXPECT_EQ(level_of(0.18, false), 1);
  EXPECT_EQ(level_of(0.12, false), 2);
  EXPECT_EQ(level_of(0.01, false), 0) << "nothing helps, so nothing is taken away";
  EXPECT_EQ(level_of(0.12, false, 0), 0) << "not allowed";
  EXPECT_EQ(level_of(0.12, true), 0) << "the request insists";
}

TEST(Objectives, AnAnswerLateEvenAloneLowersTheLevelToo) {
  SchedulerOptions options = kRoom;
  options.max_level = 2;
  SchedulerHarness h(options);
  ask(h, 4, 30, 0, 3.0e-3);
  h.step();
  h.scheduler.plan(h.now, LevelCosts(), h.batch);
  EXPECT_EQ(h.batch.shape.level, 1) << "1 + 1.5 ms is within 85 % of 3 ms, 1 + 2 ms is not";
}

TEST(Forecast, FirstTokensComeAboutWhenPredicted) {
  SchedulerHarness h(kRoom, costs());
  for (int i = 0; i < 3; ++i) ask(h, 20, 40, 0, 60e-3);
  for (int i = 0; i < 3; ++i) h.step();
  const LinearCosts c = costs();
  const LoadForecast load = forecast(h.scheduler, c, 0.1);
  EXPECT_EQ(load.running_rows, 0);
  EXPECT_EQ(load.free_places, 5);
  const double expected = seconds_to_first_token(load, 0, 0, 150);
  Sequence& s = ask(h, 150, 1, 10);
  const double start = h.now;
  while (s.state != SequenceState::kFinished) h.step();
  EXPECT_NEAR((h.now - start) / expected, 1, 0.25);
}

TEST(Forecast, WaitsForPlacesWhereNoneIsFree) {
  LoadForecast load{.row_seconds = 1e-3, .place_seconds = 0.5, .free_places = 0};
  EXPECT_NEAR(seconds_to_first_token(load, 0, 0, 10), 0.51, 1e-9);
  EXPECT_NEAR(seconds_to_first_token(load, 100, 3, 10), 2.01, 1e-9);
  load.free_places = 8;
  EXPECT_NEAR(seconds_to_first_token(load, 100, 3, 10), 0.11, 1e-9);
}

}  // namespace
}  // namespace spear
