#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/scheduler/cost_table.h"
#include "spear/scheduler/learned_costs.h"

namespace spear {
namespace {

StepCostTable table() {
  StepCostTable t;
  t.rows = {1, 4, 16, 64, 256};
  t.base = {2e-3, 3e-3, 8e-3, 30e-3, 115e-3};
  t.compensators = {2e-4, 4e-4, 1e-3, 4e-3, 15e-3};
  t.decode_row = 1e-4;
  t.context_token = 1e-6;
  t.prefill_pair = 2e-7;
  t.level_shares = {1, 0.5, 0};
  return t;
}

StepShape shape(int64_t decode, int64_t prefill, int32_t level = 0) {
  return {.decode_sequences = decode,
          .decode_rows = decode,
          .prefill_tokens = prefill,
          .context_tokens = decode * 500,
          .prefill_pairs = prefill * 300,
          .level = level};
}

TEST(StepCostTable, InterpolatesBetweenKnotsAndGoesOnBeyondThem) {
  const StepCostTable t = table();
  EXPECT_NEAR(t.seconds({.prefill_tokens = 40}), 19e-3 + 2.5e-3, 1e-12);
  EXPECT_NEAR(t.seconds({.prefill_tokens = 448}), 115e-3 + 85e-3 + 15e-3 + 11e-3, 1e-12);
  EXPECT_NEAR(t.seconds(shape(4, 0)), 3e-3 + 4e-4 + 4e-4 + 2e-3, 1e-12);
}

TEST(StepCostTable, ALevelCostsItsShareOfTheCompensators) {
  const StepCostTable t = table();
  EXPECT_NEAR(t.seconds({.prefill_tokens = 64, .level = 1}), 32e-3, 1e-12);
  EXPECT_NEAR(t.seconds({.prefill_tokens = 64, .level = 2}), 30e-3, 1e-12);
  const CompensatorWork work{.rank = 8, .in = 100, .out = 200, .gate_hidden = 32};
  EXPECT_EQ(work.multiply_adds(), 8 * 300 + 2 * 8 * 32);
}

TEST(StepCostTable, ComesBackFromItsText) {
  StepCostTable t = table();
  t.device = "a processor";
  const StepCostTable back = value_or_throw(parse_step_costs(to_json_text(t), "costs.json"));
  EXPECT_EQ(back.rows, t.rows);
  EXPECT_EQ(back.level_shares, t.level_shares);
  EXPECT_EQ(back.device, t.device);
  EXPECT_DOUBLE_EQ(back.seconds(shape(3, 77, 1)), t.seconds(shape(3, 77, 1)));
}

TEST(StepCostTable, SaysWhatIsWrongWithAText) {
  const auto says = [](const char* text) {
    const auto parsed = parse_step_costs(text, "costs.json");
    return parsed ? std::string("nothing") : parsed.error().message;
  };
  EXPECT_NE(says("[]").find("costs.json"), std::string::npos);
  EXPECT_NE(says(R"({"rows":[4,2],"base":[1,1]})").find("ascending"), std::string::npos);
  EXPECT_NE(says(R"({"rows":[1,2],"base":[1]})").find("base"), std::string::npos);
  EXPECT_NE(says(R"({"rows":[1,2],"base":[1,-1]})").find("base"), std::string::npos);
  EXPECT_NE(says(R"({"rows":[1,1e99],"base":[1,1]})").find("rows"), std::string::npos);
  EXPECT_NE(says(R"({"rows":[1,2],"base":[1,2],"level_shares":[0.5]})").find("level_shares"),
            std::string::npos);
  EXPECT_NE(says(R"({"rows":[1,2],"base":[1,2],"decode_row":"x"})").find("decode_row"),
            std::string::npos);
}

StepShape some_shape(Rng& rng) {
  return shape(1 + rng.below(16), rng.below(2) == 0 ? 0 : rng.below(200));
}

TEST(LearnedCosts, FollowsAMachineThatBecomesSlower) {
  LearnedCosts costs(table());
  StepCostTable slower = table();
  for (double& s : slower.base) s *= 1.6;
  slower.context_token *= 1.6, slower.decode_row *= 1.6;
  Rng rng(1);
  for (int i = 0; i < 400; ++i) {
    const StepShape s = some_shape(rng);
    costs.observe(s, slower.seconds(s) * std::exp(0.03 * rng.normal()));
  }
  EXPECT_LT(costs.error(), 0.05);
  for (int i = 0; i < 100; ++i) {
    const StepShape s = some_shape(rng);
    EXPECT_NEAR(costs.seconds(s) / slower.seconds(s), 1, 0.08);
  }
}

TEST(LearnedCosts, LearnsWhichTermIsWrong) {
  LearnedCosts costs(table());
  StepCostTable other = table();
  other.context_token *= 3;
  Rng rng(2);
  for (int i = 0; i < 3000; ++i) {
    const StepShape s = some_shape(rng);
    costs.observe(s, other.seconds(s));
  }
  EXPECT_NEAR(costs.seconds(shape(16, 0)) / other.seconds(shape(16, 0)), 1, 0.05);
  EXPECT_NEAR(costs.seconds(shape(1, 180)) / other.seconds(shape(1, 180)), 1, 0.05);
}

TEST(LearnedCosts, IsNotMovedFarByStrayStepsNorByNonsense) {
  LearnedCosts costs(table());
  Rng rng(3);
  for (int i = 0; i < 500; ++i) {
    const StepShape s = some_shape(rng);
    const double stray = rng.below(50) == 0 ? 100 : 1;
    costs.observe(s, table().seconds(s) * stray * std::exp(0.02 * rng.normal()));
    costs.observe(s, std::nan(""));
    costs.observe(s, -1);
  }
  EXPECT_EQ(costs.observed(), 500);
  EXPECT_NEAR(costs.seconds(shape(8, 64)) / table().seconds(shape(8, 64)), 1, 0.15);
}

TEST(LearnedCosts, StaysWithinItsBoundsWhateverItIsTold) {
  LearnedCosts costs(table());
  for (int i = 0; i < 20000; ++i) costs.observe(shape(4, 0), i % 2 == 0 ? 1e9 : 1e-9);
  for (int i = 0; i < 20000; ++i) costs.observe(shape(4, 100), 1e9);
  const double ratio = costs.seconds(shape(9, 30)) / table().seconds(shape(9, 30));
  EXPECT_GE(ratio, LearnedCosts::kLeast * (1 - 1e-12));
  EXPECT_LE(ratio, LearnedCosts::kMost * (1 + 1e-12));
  EXPECT_LE(costs.headroom(), LearnedCosts::kMostHeadroom);
}

// A deadline planned with the headroom is kept by about the promised share of steps.
TEST(LearnedCosts, HeadroomCoversNearlyAllSteps) {
  LearnedCosts costs(table());
  Rng rng(4);
  int late = 0;
  constexpr int kWarmUp = 2000, kSteps = 20000;
  for (int i = 0; i < kWarmUp + kSteps; ++i) {
    const StepShape s = some_shape(rng);
    const double took = table().seconds(s) * std::exp(0.06 * rng.normal());
    if (i >= kWarmUp && took > costs.headroom() * costs.seconds(s)) ++late;
    costs.observe(s, took);
  }
  EXPECT_NEAR(static_cast<double>(late) / kSteps, 0.01, 0.006);
  EXPECT_LT(costs.headroom(), 1.25);
}

}  // namespace
}  // namespace spear
