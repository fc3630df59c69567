#include "spear/scheduler/simulator.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/scheduler/learned_costs.h"

namespace spear {
namespace {

StepCostTable device() {
  StepCostTable t;
  t.rows = {1, 8, 32, 128, 512};
  t.base = {2.2e-3, 5e-3, 17e-3, 62e-3, 245e-3};
  t.compensators = {1e-4, 3e-4, 1e-3, 4e-3, 15e-3};
  t.decode_row = 1.5e-4;
  t.context_token = 1e-6;
  t.prefill_pair = 1e-7;
  t.level_shares = {1, 0};
  return t;
}

SimulationOptions options(bool check) {
  SimulationOptions o;
  o.scheduler = {
      .pages = 256, .page_size = 64, .max_running = 16, .max_waiting = 256, .token_budget = 512};
  o.check = check;
  o.noise = 0.05;
  o.between_steps = 2e-4;
  return o;
}

std::vector<SimulatedRequest> poisson(int count, double rate, double ttft = 3, double itl = 0.06) {
  Rng rng(7);
  std::vector<SimulatedRequest> requests;
  double at = 0;
  for (int i = 0; i < count; ++i) {
    at += -std::log(1 - rng.uniform()) / rate;
    requests.push_back({.arrival = at,
                        .prompt = static_cast<int32_t>(1 + rng.below(700)),
                        .answer = static_cast<int32_t>(1 + rng.below(100)),
                        .ttft_objective = ttft,
                        .itl_objective = itl});
  }
  return requests;
}

Simulation run(const std::vector<SimulatedRequest>& requests, const SimulationOptions& o) {
  const StepCostTable truth = device();
  LearnedCosts costs(truth);
  return simulate(requests, truth, costs, o);
}

TEST(Simulator, ServesEveryoneAndKeepsTheInvariants) {
  const auto requests = poisson(2000, 2);
  const Simulation result = run(requests, options(true));
  EXPECT_EQ(result.broken, nullptr) << result.broken;
  int64_t tokens = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SimulatedOutcome& o = result.outcomes[i];
    ASSERT_EQ(o.end, SimulatedEnd::kServed);
    ASSERT_EQ(o.gaps + 1, requests[i].answer);
    ASSERT_GT(o.first_token, requests[i].arrival);
    tokens += requests[i].answer;
  }
  EXPECT_EQ(result.tokens, tokens);
  EXPECT_EQ(result.gaps.count(), tokens - std::ssize(requests));
}

TEST(Simulator, IsTheSameAgain) {
  const auto requests = poisson(300, 3);
  const Simulation a = run(requests, options(false)), b = run(requests, options(false));
  EXPECT_EQ(a.seconds, b.seconds);
  EXPECT_EQ(a.steps, b.steps);
}

TEST(Simulator, ObjectivesBoundTheGapsThatAStaticChunkDoesNot) {
  const auto requests = poisson(1500, 3);
  SimulationOptions o = options(false);
  const ServiceLevel slo = service_level(requests, run(requests, o), 0.01);
  o.scheduler.static_chunk = 512;
  const ServiceLevel fixed = service_level(requests, run(requests, o), 0.01);
  EXPECT_LE(slo.p99_itl, 0.06 * 1.05);
  EXPECT_GT(fixed.p99_itl, 0.06 * 2);
  EXPECT_GT(slo.goodput, fixed.goodput);
}

TEST(Simulator, AdmissionKeepsGoodputUnderFiveTimesTheLoad) {
  SimulationOptions o = options(false);
  o.admission = true;
  double peak = 0;
  for (const double rate : {3.0, 4.0, 5.0}) {
    const auto requests = poisson(1500, rate);
    peak = std::max(peak, service_level(requests, run(requests, o), 0.01).goodput);
  }
  const auto flood = poisson(6000, 25);
  const ServiceLevel level = service_level(flood, run(flood, o), 0.01);
  EXPECT_GT(level.refused, 3000);
  EXPECT_GE(level.goodput, 0.95 * peak);
}

TEST(Simulator, LevelsFallUnderLoadOnlyAndNotForThoseWhoInsist) {
  SimulationOptions o = options(false);
  o.scheduler.max_level = 1;
  auto requests = poisson(600, 5.5);
  const Simulation busy = run(requests, o);
  EXPECT_GT(busy.steps_below_full, 0);
  EXPECT_EQ(run(poisson(300, 0.2, 30, 1), o).steps_below_full, 0);
  for (SimulatedRequest& r : requests) r.full_quality = true;
  EXPECT_EQ(run(requests, o).steps_below_full, 0);
}

}  // namespace
}  // namespace spear
