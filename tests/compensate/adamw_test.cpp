#include "spear/compensate/adamw.h"

#include <cmath>

#include <gtest/gtest.h>

namespace spear {
namespace {

AdamWOptions plain() {
  AdamWOptions options;
  options.beta2 = 0.999;
  options.clip_norm = 0;
  options.schedule = Schedule::kConstant;
  return options;
}

// θ ← θ − lr·(m̂ / (√v̂ + ε) + λθ) with both moments written out from all gradients so far.
TEST(AdamW, FollowsItsDefinition) {
  AdamWOptions options = plain();
  options.weight_decay = 0.1;
  AdamW adam(options, 1);
  std::vector<float> value = {0.7f};
  double expected = 0.7;
  const std::vector<double> gradients = {0.3, -0.2, 0.05, 0.4};
  for (size_t t = 1; t <= gradients.size(); ++t) {
    double first = 0;
    double second = 0;
    for (size_t i = 0; i < t; ++i) {
      first += 0.1 * std::pow(0.9, static_cast<double>(t - 1 - i)) * gradients[i];
      second +=
          0.001 * std::pow(0.999, static_cast<double>(t - 1 - i)) * gradients[i] * gradients[i];
    }
    first /= 1 - std::pow(0.9, static_cast<double>(t));
    second /= 1 - std::pow(0.999, static_cast<double>(t));
    expected -= 0.01 * (first / (std::sqrt(second) + 1e-8) + 0.1 * expected);
    adam.step(value, std::vector<float>{static_cast<float>(gradients[t - 1])},
              std::vector<float>{0.01f}, std::vector<float>{1.0f});
    ASSERT_NEAR(value[0], expected, 1e-6);
  }
  EXPECT_EQ(adam.state().step, 4);
}

TEST(AdamW, ClipsByTheGlobalNormOfWhatIsTrained) {
  AdamWOptions options = plain();
  options.clip_norm = 1.0;
  AdamW adam(options, 3);
  std::vector<float> values = {0, 0, 5};
  const double norm = adam.step(values, std::vector<float>{3, 4, 100},
                                std::vector<float>{0.1f, 0.1f, 0.0f}, std::vector<float>{1, 1, 1});
  EXPECT_DOUBLE_EQ(norm, 5.0);
  EXPECT_NEAR(adam.state().first[0], 0.1 * 3 / 5, 1e-7);
  EXPECT_NEAR(adam.state().second[1], 0.001 * 0.8 * 0.8, 1e-9);
  EXPECT_EQ(values[2], 5.0f);
  EXPECT_EQ(adam.state().first[2], 0.0f);
}

// With value = gain · θ the run is that of θ.
TEST(AdamW, GainsAreAChangeOfUnits) {
  AdamW scaled(plain(), 1);
  AdamW unit(plain(), 1);
  std::vector<float> value = {0.5f};
  std::vector<float> theta = {5.0f};
  for (const float g : {0.3f, -0.7f, 0.2f}) {
    scaled.step(value, std::vector<float>{g}, std::vector<float>{0.02f}, std::vector<float>{0.1f});
    unit.step(theta, std::vector<float>{g * 0.1f}, std::vector<float>{0.02f},
              std::vector<float>{1.0f});
    ASSERT_NEAR(value[0], 0.1f * theta[0], 1e-6);
  }
}

TEST(AdamW, GoesOnFromItsState) {
  AdamW whole(plain(), 1);
  AdamW part(plain(), 1);
  std::vector<float> a = {1.0f};
  std::vector<float> b = {1.0f};
  const std::vector<float> rate = {0.01f};
  const std::vector<float> gain = {1.0f};
  for (int i = 0; i < 3; ++i)
    whole.step(a, std::vector<float>{0.1f * static_cast<float>(i)}, rate, gain);
  part.step(b, std::vector<float>{0.0f}, rate, gain);
  AdamW resumed(plain(), part.state());
  for (int i = 1; i < 3; ++i)
    resumed.step(b, std::vector<float>{0.1f * static_cast<float>(i)}, rate, gain);
  EXPECT_EQ(a, b);
}

TEST(Schedule, WarmsUpThenFollowsACosineToItsFloor) {
  AdamWOptions options;
  options.steps = 100;
  options.warmup = 10;
  EXPECT_NEAR(schedule_factor(options, 0), 0.1, 1e-12);
  EXPECT_NEAR(schedule_factor(options, 50), 0.05 + 0.95 * 0.5, 1e-12);
  EXPECT_NEAR(schedule_factor(options, 100), 0.05, 1e-12);
  for (int64_t step = 10; step < 100; ++step)
    EXPECT_GT(schedule_factor(options, step), schedule_factor(options, step + 1));
  options.schedule = Schedule::kConstant;
  EXPECT_EQ(schedule_factor(options, 0), 1.0);
}

}  // namespace
}  // namespace spear
