#include "spear/compensate/allocate.h"

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/compensate/base_model.h"
#include "spear/model/quantized_model.h"

#include "support/tiny_model.h"

namespace spear {
namespace {

std::vector<ModuleGains> random_gains(const ModelConfig& config, uint64_t seed) {
  Rng rng(seed);
  std::vector<ModuleGains> modules;
  for (const ModuleId& id : all_modules(config)) {
    ModuleGains m{rng.uniform(), 0, {}};
    double gain = 1 + rng.uniform();
    for (int64_t r = 0;
         r < std::min(out_features(config, id.module), in_features(config, id.module)); ++r) {
      m.gains.push_back(gain);
      m.error += gain;
      gain *= 0.5 + 0.5 * rng.uniform();
    }
    modules.push_back(std::move(m));
  }
  return modules;
}

TEST(CompensatorFormat, CountsWhatPackingStores) {
  for (const int32_t bits : {4, 8, 16})
    for (const int32_t per_rank : {0, 1, 4})
      for (const int32_t rank : {1, 2, 5})
        for (const auto& [n, k] : std::vector<std::pair<int32_t, int32_t>>{{7, 9}, {24, 40}}) {
          CompensatorValues values;
          values.rank = rank;
          values.n = n;
          values.k = k;
          values.gate_hidden = per_rank * rank;
          values.a.assign(static_cast<size_t>(rank * k), 0.5f);
          values.b.assign(static_cast<size_t>(rank * n), 0.5f);
          values.w1.assign(static_cast<size_t>(values.gate_hidden * rank), 0.0f);
          values.w2 = values.w1;
          values.b1.assign(static_cast<size_t>(values.gate_hidden), 0.0f);
          values.b2.assign(per_rank == 0 ? 0 : static_cast<size_t>(rank), 0.0f);
          EXPECT_EQ((CompensatorFormat{bits, per_rank}.bytes(n, k, rank)),
                    pack(values, bits).bytes())
              << bits << ' ' << per_rank << ' ' << rank;
        }
}

TEST(Allocate, EvenlyThenByGainStopsAtTheRanksThatAreKnown) {
  const ModelConfig config = test::tiny_config();
  std::vector<ModuleGains> gains = random_gains(config, 3);
  for (size_t i = 0; i < gains.size(); ++i) gains[i].gains.resize(i % 3);
  const CompensatorFormat format{8, 0};
  const Allocation allocation = spend_evenly_then_by_gain(config, gains, 1 << 20, format);
  size_t bytes = 0;
  for (const ModuleId& id : all_modules(config)) {
    const auto at = static_cast<size_t>(id.index());
    EXPECT_EQ(allocation.ranks[at], static_cast<int32_t>(at % 3));
    bytes += format.bytes(config, id, allocation.ranks[at]);
  }
  EXPECT_EQ(allocation.bytes, bytes);
}

TEST(Allocate, ByGainSpendsTheBudgetAndNoMore) {
  const ModelConfig config = test::tiny_config();
  const std::vector<ModuleGains> gains = random_gains(config, 1);
  for (const CompensatorFormat format :
       {CompensatorFormat{8, 0}, CompensatorFormat{4, 0}, CompensatorFormat{8, 4}})
    for (const size_t budget : {size_t{100}, size_t{500}, size_t{3000}, size_t{20000}}) {
      const auto allocation = allocate_by_gain(config, gains, budget, format);
      ASSERT_TRUE(allocation) << allocation.error().message;
      size_t bytes = 0, cheapest_next = SIZE_MAX;
      for (const ModuleId& id : all_modules(config)) {
        const int32_t rank = allocation->ranks[static_cast<size_t>(id.index())];
        bytes += format.bytes(config, id, rank);
        if (rank < static_cast<int32_t>(gains[static_cast<size_t>(id.index())].gains.size()))
          cheapest_next = std::min(
              cheapest_next, format.bytes(config, id, rank + 1) - format.bytes(config, id, rank));
      }
      EXPECT_EQ(bytes, allocation->bytes);
      EXPECT_LE(bytes, budget);
      if (cheapest_next != SIZE_MAX) {  // nothing more fits
        EXPECT_GT(bytes + cheapest_next, budget);
      }
    }
}

TEST(Allocate, ByGainTakesTheBestBytesFirst) {
  const ModelConfig config = test::tiny_config();
  std::vector<ModuleGains> gains(all_modules(config).size());
  for (ModuleGains& m : gains) m = {1, 10, {1, 1, 1}};
  gains[4] = {1, 10, {8, 1, 1}};  // layer 0, gate
  const CompensatorFormat format;
  const auto one =
      allocate_by_gain(config, gains, format.bytes(config, {0, Module::kGate}, 1), format);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->ranks[4], 1);
  // Without gains for more ranks it stops, however much is left.
  const auto all = allocate_by_gain(config, gains, 1000000, format);
  ASSERT_TRUE(all);
  for (const int32_t rank : all->ranks) EXPECT_EQ(rank, 3);
  // A module that does no damage gets nothing.
  gains[2].damage = 0;
  EXPECT_EQ(allocate_by_gain(config, gains, 1000000, format)->ranks[2], 0);
}

TEST(Allocate, EvenlyGivesTheLargestRankThatFits) {
  const ModelConfig config = test::tiny_config();
  const std::vector<ModuleId> modules = all_modules(config);
  const CompensatorFormat format;
  const auto total = [&](int32_t rank) {
    return allocate_rank(config, modules, rank, format)->bytes;
  };
  EXPECT_EQ(allocate_evenly(config, modules, total(3), format)->ranks[0], 3);
  EXPECT_EQ(allocate_evenly(config, modules, total(3) - 1, format)->ranks[0], 2);
  EXPECT_EQ(allocate_evenly(config, modules, total(3), format)->bytes, total(3));
  // Never more than the smallest module allows (k and v have 16 rows).
  EXPECT_EQ(allocate_evenly(config, modules, size_t{1} << 30, format)->ranks[0], 16);
  const std::vector<ModuleId> chosen = {{0, Module::kDown}, {1, Module::kQ}};
  const auto some = allocate_evenly(config, chosen, 1000, format);
  ASSERT_TRUE(some);
  EXPECT_EQ(some->ranks[0], 0);
  EXPECT_EQ(some->ranks[static_cast<size_t>(chosen[1].index())], some->ranks[6]);
}

TEST(Allocate, SaysWhatIsTooSmallAndTooLarge) {
  const ModelConfig config = test::tiny_config();
  const std::vector<ModuleId> modules = all_modules(config);
  const CompensatorFormat format;
  const auto poor = allocate_by_gain(config, random_gains(config, 2), 10, format);
  ASSERT_FALSE(poor);
  EXPECT_EQ(poor.error().code, ErrorCode::kBudget);
  const auto smallest = std::to_string(format.bytes(config, {0, Module::kK}, 1));
  EXPECT_NE(poor.error().message.find("takes " + smallest), std::string::npos)
      << poor.error().message;
  const auto even = allocate_evenly(config, modules, 100, format);
  ASSERT_FALSE(even);
  EXPECT_EQ(even.error().code, ErrorCode::kBudget);
  const auto large = allocate_rank(config, modules, 17, format);
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, ErrorCode::kUsage);
  EXPECT_NE(large.error().message.find("layers.0.self_attn.k_proj is 16 x 24"), std::string::npos);
  EXPECT_FALSE(allocate_rank(config, modules, 0, format));
}

}  // namespace
}  // namespace spear
