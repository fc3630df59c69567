#include "spear/eval/statistics.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "support/random_tensors.h"

namespace spear {
namespace {

TEST(Bootstrap, StandardErrorIsThatOfTheWindowMeans) {
  Rng rng(3);
  const int64_t windows = 200;
  const int64_t each = 5;
  const std::vector<float> values = test::normal_values(windows * each, rng);
  std::vector<double> means;
  double mean = 0;
  for (int64_t w = 0; w < windows; ++w) {
    double sum = 0;
    for (int64_t i = 0; i < each; ++i)
      sum += static_cast<double>(values[static_cast<size_t>(w * each + i)]);
    means.push_back(sum / each);
    mean += means.back() / windows;
  }
  double variance = 0;
  for (const double m : means) variance += (m - mean) * (m - mean) / windows;
  const double expected = std::sqrt(variance / windows);
  const Interval interval = bootstrap_mean(values, each, 1);
  EXPECT_NEAR(interval.mean, mean, 1e-12);
  // 1,000 resamples know a standard deviation to 1 / sqrt(2,000) of itself; five of those.
  EXPECT_NEAR(interval.standard_error / expected, 1.0, 5 / std::sqrt(2000.0));
  // A quantile at 2.5 % of 1,000 draws is known to 0.083 deviations; five of those, twice.
  EXPECT_NEAR((interval.high - interval.low) / expected, 2 * 1.96, 10 * 0.083);
  EXPECT_LT(interval.low, mean);
  EXPECT_GT(interval.high, mean);
}

TEST(Bootstrap, PairsTheWindowsOfADifference) {
  Rng rng(4);
  std::vector<float> a = test::normal_values(300, rng);
  std::vector<float> b = a;
  for (float& value : b) value -= 0.25f;
  const Interval interval = bootstrap_difference(a, b, 10, 1);
  EXPECT_NEAR(interval.mean, 0.25, 1e-6);
  EXPECT_LT(interval.standard_error, 1e-6);
}

TEST(Bootstrap, OneWindowHasNoError) {
  const std::vector<float> values = {1, 2, 3};
  const Interval interval = bootstrap_mean(values, 3, 1);
  EXPECT_DOUBLE_EQ(interval.mean, 2);
  EXPECT_TRUE(std::isnan(interval.standard_error));
}

TEST(Quantile, InterpolatesBetweenNeighbours) {
  const std::vector<float> values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(values, 0.0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 1.0), 4);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 2.5);
  EXPECT_NEAR(quantile(values, 0.99), 3.97, 1e-12);
  EXPECT_DOUBLE_EQ(quantile(std::vector<float>{7}, 0.5), 7);
}

TEST(TokenError, IsTheStandardErrorOfIndependentValues) {
  const std::vector<float> values = {1, 2, 3, 4};
  EXPECT_NEAR(token_standard_error(values), std::sqrt(5.0 / 3 / 4), 1e-12);  // variance 5/3 over n
}

TEST(KlHistogram, PutsEveryValueInItsBin) {
  KlHistogram histogram;
  for (const double value : {-1e-9, 0.0, 9.9e-7, 1.01e-6, 0.5, 9.99, 10.1, 1e9})
    histogram.add(value);
  int64_t total = 0;
  for (const int64_t count : histogram.counts) total += count;
  EXPECT_EQ(total, 8);
  EXPECT_EQ(histogram.counts.front(), 3);
  EXPECT_EQ(histogram.counts.back(), 2);
  EXPECT_EQ(histogram.counts[1], 1);
  Rng rng(5);
  for (int i = 0; i < 1000; ++i) {
    const double value = std::pow(10.0, -7 + 9 * rng.uniform());
    KlHistogram one;
    one.add(value);
    const auto found = std::find(one.counts.begin(), one.counts.end(), 1);
    const auto bin = static_cast<int>(found - one.counts.begin());
    EXPECT_LT(value, KlHistogram::upper_edge(bin) * (1 + 1e-12));
    const double lower = bin > 0 ? KlHistogram::upper_edge(bin - 1) : 0.0;
    EXPECT_GE(value, lower * (1 - 1e-12));
  }
}

}  // namespace
}  // namespace spear
