#include "support/random_tensors.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/dtype.h"

namespace spear::test {
namespace {

TEST(RandomTensors, SameSeedSameValues) {
  Rng a(5);
  Rng b(5);
  EXPECT_EQ(normal_values(100, a), normal_values(100, b));
}

TEST(RandomTensors, UniformStaysInItsRange) {
  Rng rng(1);
  for (const float value : uniform_values(1000, rng, -2, 3)) {
    EXPECT_GE(value, -2);
    EXPECT_LE(value, 3);
  }
}

TEST(RandomTensors, OutlierColumnsAreLarge) {
  Rng rng(2);
  const std::vector<float> x = outlier_values(200, 64, rng, 32, 20);
  double outlier = 0;
  double other = 0;
  for (size_t row = 0; row < 200; ++row) {
    outlier += std::abs(x[row * 64 + 16]);
    other += std::abs(x[row * 64 + 17]);
  }
  EXPECT_GT(outlier, 10 * other);
}

TEST(RandomTensors, RoundedValuesAreExactInTheirType) {
  Rng rng(3);
  const std::vector<float> x = normal_values(1000, rng);
  for (const float value : rounded_to_bf16(x))
    EXPECT_EQ(value, float_from_bf16(bf16_from_float(value)));
  for (const float value : rounded_to_f16(x))
    EXPECT_EQ(value, float_from_f16(f16_from_float(value)));
}

}  // namespace
}  // namespace spear::test
