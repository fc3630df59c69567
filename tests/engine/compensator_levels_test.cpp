// Compensators switched off step by step: what a level runs, that it computes what a model without
// those compensators does, and that nobody finds its pages in the prefix cache.
#include "spear/engine/compensator_levels.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"
#include "spear/engine/engine.h"
#include "spear/engine/model_runner.h"

#include "engine/collector.h"
#include "support/tiny_compressed.h"

namespace spear {
namespace {

using test::ask;
using test::greedy;

QuantizedModel compensated(int32_t rank = 6) {
  return test::tiny_compressed(
      {.model = {.max_position_embeddings = 256}, .rank = rank, .factor_bits = 8, .gated = true});
}

void drop(QuantizedModel& model, const std::vector<uint8_t>& active) {
  for (size_t l = 0; l < model.layers.size(); ++l)
    for (const Module m : kModules)
      if (active[l * kSitesPerLayer + static_cast<size_t>(input_site(m))] == 0)
        model.layers[l].linear(m).compensator.reset();
}

TEST(CompensatorLevels, EachRunsLessThanTheLastAndTheLastNone) {
  const CompensatorLevels levels = plan_levels(compensated(), 3);
  ASSERT_EQ(levels.count(), 4);
  EXPECT_EQ(levels.shares.front(), 1);
  EXPECT_EQ(levels.shares.back(), 0);
  for (int32_t level = 1; level < levels.count(); ++level) {
    const auto l = static_cast<size_t>(level);
    EXPECT_LE(levels.shares[l], levels.shares[l - 1]);
    EXPECT_GE(levels.shares[l], 1 - level / 3.0 - 1e-9);
    for (size_t i = 0; i < levels.active[l].size(); ++i)
      EXPECT_LE(levels.active[l][i], levels.active[l - 1][i]) << "off stays off";
  }
  EXPECT_EQ(plan_levels(compensated(0), 3).count(), 1);
}

TEST(CompensatorLevels, TheLeastWorthForItsPriceGoesFirst) {
  QuantizedModel model = compensated();
  // One site's corrections become far smaller than all others.
  const size_t layer = model.layers.size() - 1;
  for (const Module m : {Module::kQ, Module::kK, Module::kV}) {
    auto& ec = model.layers[layer].linear(m).compensator;
    if (!ec) continue;
    CompensatorValues values = unpack(ec->view(), ec->n, ec->k);
    for (float& b : values.b) b *= 1e-3F;
    ec = pack(values, 8);
  }
  const CompensatorLevels levels = plan_levels(model, 100);
  for (size_t level = 1; level < levels.active.size(); ++level) {
    const auto& active = levels.active[level];
    if (std::ranges::count(active, 0) == 0) continue;
    EXPECT_EQ(active[layer * kSitesPerLayer], 0);
    break;
  }
}

class Levels : public testing::Test {
 protected:
  std::vector<float> logits(const QuantizedModel& model, const CompensatorLevels& levels,
                            int32_t level, int64_t rows) {
    Decoder decoder(*backend_, model, Compute::kBF16, DecoderPath::kFused);
    EXPECT_NE(decoder.program(), nullptr) << decoder.describe();
    DecoderModel runner(decoder, {.pages = 4, .levels = levels});
    EXPECT_EQ(runner.levels(), std::max(levels.count(), 1));
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < rows; ++i)
      tokens.push_back(static_cast<int32_t>(i * 5 % model.config.vocab_size));
    const std::vector<int32_t> pages = {0, 1, 2, 3};
    const AttentionSequence sequence{0, rows, 0, pages.data()};
    const auto last = static_cast<int32_t>(rows - 1);
    const auto run = [&](int32_t l) {
      return runner.run(
          {.tokens = tokens, .sequences = {&sequence, 1}, .logit_rows = {&last, 1}, .level = l});
    };
    if (level > 0) run(0);  // whatever stood in the workspace must not matter
    const std::span<float> out = run(level);
    return {out.begin(), out.end()};
  }

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
};

// A single row, rows that threads share, and rows of each thread's own.
TEST_F(Levels, ComputeWhatAModelWithoutThoseCompensatorsDoes) {
  const QuantizedModel model = compensated();
  const CompensatorLevels levels = plan_levels(model, 3);
  for (const int64_t rows : {1, 7, 150}) {
    std::vector<float> before;
    for (int32_t level = 0; level < levels.count(); ++level) {
      QuantizedModel without = compensated();
      drop(without, levels.active[static_cast<size_t>(level)]);
      const std::vector<float> got = logits(model, levels, level, rows);
      EXPECT_EQ(got, logits(without, {}, 0, rows)) << "level " << level << ", rows " << rows;
      const bool same_set = level > 0 && levels.active[static_cast<size_t>(level)] ==
                                             levels.active[static_cast<size_t>(level - 1)];
      if (level > 0 && !same_set) {
        EXPECT_NE(got, before) << "compensators change something";
      }
      before = got;
    }
  }
}

// Prompts seem slow at level 0 alone, so that a first-token objective asks for the last level.
struct PressingCosts final : StepCostModel {
  double seconds(const StepShape& s) const override {
    return s.level == 3 ? 1e-6 : 1e-2 * static_cast<double>(s.prefill_tokens + 1);
  }
  int32_t levels() const override { return 4; }
};

TEST_F(Levels, AnswersSayTheirLevelAndTheirPagesAreNotShared) {
  const QuantizedModel model = compensated();
  Decoder decoder(*backend_, model, Compute::kBF16, DecoderPath::kFused);
  DecoderModel runner(decoder, {.pages = 16, .levels = plan_levels(model, 3)});
  PressingCosts costs;
  EngineOptions options = test::small_options();
  options.token_budget = 256;
  options.max_context = 256;
  options.costs = &costs;
  options.refuse_late = false;
  options.max_level = 3;
  Engine engine(runner, nullptr, options);
  Request request = greedy(std::vector<int32_t>(130, 7), 4);
  request.ttft_objective = 0.5;
  const auto degraded = ask(engine, request);
  EXPECT_EQ(degraded.only().finish.level, 3);
  request.full_quality = true;
  const auto full = ask(engine, request);
  EXPECT_EQ(full.only().finish.level, 0);
  EXPECT_EQ(full.only().finish.cached_tokens, 0) << "pages of a lower level are not found";
  const auto again = ask(engine, request);
  EXPECT_GT(again.only().finish.cached_tokens, 0);
  EXPECT_EQ(again.only().tokens, full.only().tokens);
  EXPECT_GT(engine.stats().steps_below_full, 0);
}

}  // namespace
}  // namespace spear
