#include "spear/diagnose/placement.h"

#include <cmath>

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace spear {
namespace {

using Damages = std::vector<double>;

// The three worked examples of the cover rule, computed by hand in the design (N = 20, τ = 0.8).
TEST(Cover, ConcentratedDamageTakesAFewModules) {
  const Damages damage = {.30,  .12,  .05,  .02,  .01,  .008, .006, .005, .004, .003,
                          .003, .002, .002, .002, .002, .001, .001, .001, .001, .001};
  const Cover cover = choose_cover(damage);
  EXPECT_NEAR(cover.entropy, 0.489, 0.002);
  EXPECT_DOUBLE_EQ(cover.tau_effective, 0.8);
  EXPECT_EQ(cover.count, 3);
}

TEST(Cover, DiffuseDamageLowersTheTarget) {
  Damages damage;
  for (int i = 0; i < 20; ++i) damage.push_back(.020 - .010 * i / 19);
  const Cover cover = choose_cover(damage);
  EXPECT_NEAR(cover.entropy, 0.993, 0.002);
  EXPECT_NEAR(cover.tau_effective, 0.43, 0.02);
  EXPECT_EQ(cover.count, 7);
}

TEST(Cover, EvenDamageHalvesTheTargetAndClampsHold) {
  const Damages even(100, 0.01);
  EXPECT_NEAR(choose_cover(even).entropy, 1.0, 1e-12);
  EXPECT_NEAR(choose_cover(even).tau_effective, 0.4, 1e-9);
  EXPECT_EQ(choose_cover(even).count, 40);
  Damages one(100, 0.0);
  one[7] = 1;
  EXPECT_EQ(choose_cover(one).count, 15);
  Damages slow;  // entropy below the knee, and a target that needs nearly all modules
  for (int i = 0; i < 100; ++i) slow.push_back(std::exp(-i / 20.0));
  CoverRule greedy;
  greedy.tau = 0.99;
  EXPECT_LT(choose_cover(slow, greedy).entropy, 0.9);
  EXPECT_EQ(choose_cover(slow, greedy).count, 60);
  EXPECT_EQ(choose_cover(Damages(10, 0.0)).count, 1);  // no damage at all: the least share
}

TEST(Placement, TakesTheProtectedByDamageAndTheRestByScore) {
  const Damages damage = {.9, .8, .5, .49, .1};
  const Damages cost = {9, 1, 9, 1, 1};
  // K = 3: two are protected; of the rest module 3 is as damaged as 2 but cheap.
  EXPECT_EQ(place(damage, cost, 3), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(place(damage, cost, 3, {.latency_weight = 0}), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(place(damage, cost, 3, {.protected_share = 1}), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_TRUE(place(damage, cost, 0).empty());
}

// Equal damage: the measured table decides, and another table decides otherwise.
TEST(Placement, FollowsTheCostTable) {
  ModelConfig config = test::tiny_config();
  const auto chosen_with = [&](const char* json) {
    const CostTable table = value_or_throw(cost_table_from_json_text(json, "costs.json"));
    Damages cost;
    for (int64_t i = 0; i < 14; ++i)
      cost.push_back(table.microseconds(config, kModules[static_cast<size_t>(i % 7)], 8));
    return place(Damages(14, 0.5), cost, 2, {.protected_share = 0});
  };
  const char* down_is_cheap =
      R"({"read_gb_s": 1000, "call_overhead_us": {"q":5,"k":5,"v":5,"o":5,"gate":5,"up":5,"down":1}})";
  const char* v_is_cheap =
      R"({"read_gb_s": 1000, "call_overhead_us": {"q":5,"k":5,"v":1,"o":5,"gate":5,"up":5,"down":5}})";
  EXPECT_EQ(chosen_with(down_is_cheap), (std::vector<int64_t>{6, 13}));
  EXPECT_EQ(chosen_with(v_is_cheap), (std::vector<int64_t>{2, 9}));
}

TEST(CostTable, CountsBytesAndCalls) {
  CostTable table;
  table.read_gb_per_s = 2;
  table.call_overhead_us.fill(1.5);
  const ModelConfig config = test::tiny_config();  // down: 40 inputs, 24 outputs
  EXPECT_NEAR(table.microseconds(config, Module::kDown, 4), 1.5 + 4 * (64 + 4) / 2000.0, 1e-12);
  const CostTable back = value_or_throw(cost_table_from_json_text(to_json_text(table), "t"));
  EXPECT_EQ(back.call_overhead_us, table.call_overhead_us);
}

TEST(CostTable, RefusesWhatIsNotOne) {
  for (
      const char* text :
      {"[]", "{}", R"({"read_gb_s": 0, "call_overhead_us": {}})", R"({"read_gb_s": 1})",
       R"({"read_gb_s": 1, "call_overhead_us": {"q":1,"k":1,"v":1,"o":1,"gate":1,"up":1}})",
       R"({"read_gb_s": 1, "call_overhead_us": {"q":-1,"k":1,"v":1,"o":1,"gate":1,"up":1,"down":1}})"}) {
    const Result<CostTable> table = cost_table_from_json_text(text, "costs.json");
    ASSERT_FALSE(table.has_value()) << text;
    EXPECT_NE(table.error().message.find("costs.json"), std::string::npos);
    EXPECT_NE(table.error().message.find("expected"), std::string::npos);
  }
}

TEST(Spearman, IsOneForTheSameOrderWhateverTheValues) {
  EXPECT_DOUBLE_EQ(spearman(Damages{1, 2, 3, 4}, Damages{10, 20, 30, 1000}), 1.0);
  EXPECT_DOUBLE_EQ(spearman(Damages{1, 2, 3, 4}, Damages{4, 3, 2, 1}), -1.0);
  // Ties take their mean rank: ranks (2.5, 2.5, 1, 0) against (3, 2, 1, 0) give 4.5 / sqrt(4.5 ·
  // 5).
  EXPECT_NEAR(spearman(Damages{1, 1, 2, 3}, Damages{0, 1, 2, 3}), 4.5 / std::sqrt(4.5 * 5.0),
              1e-12);
  EXPECT_TRUE(std::isnan(spearman(Damages{1}, Damages{1})));
  EXPECT_TRUE(std::isnan(spearman(Damages{1, 1}, Damages{1, 2})));
}

TEST(Compare, CountsTheOverlapOfTheTop) {
  Damages a, b;
  for (int i = 0; i < 10; ++i) {
    a.push_back(10 - i);
    b.push_back(i < 2 ? 20 - i : i);  // top three: {0, 1, 9} against {0, 1, 2}
  }
  const Overlap overlap = compare_damages(a, b);
  EXPECT_DOUBLE_EQ(overlap.jaccard, 0.5);
  EXPECT_NEAR(overlap.mismatch, 1.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(compare_damages(a, a).mismatch, 0.0);
}

}  // namespace
}  // namespace spear
