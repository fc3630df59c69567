#include "spear/quantize/grid.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/dtype.h"

#include "support/random_tensors.h"

namespace spear {
namespace {

float plain_error(const std::vector<float>& w, const std::vector<float>& importance, Grid grid,
                  int bits) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double code =
        std::clamp(std::nearbyint(static_cast<double>(w[i]) / grid.scale + grid.zero), 0.0,
                   std::pow(2.0, bits) - 1);
    const double error = (code - grid.zero) * grid.scale - w[i];
    sum += error * error * importance[i];
  }
  return static_cast<float>(sum);
}

TEST(Grid, RoundsToEvenLikeTheStandardLibrary) {
  for (const float value : {0.0f, 0.5f, 1.5f, 2.5f, 14.5f, 14.49999f, 254.5f, 255.0f, -0.5f, -1.5f})
    EXPECT_EQ(round_to_even(value), std::nearbyint(value)) << value;
}

TEST(Grid, StoresWhatItComputedWith) {
  Rng rng(3);
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const ZeroKind kind : {ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16}) {
      const GridOptions options{.bits = bits, .zero_kind = kind};
      for (int i = 0; i < 200; ++i) {
        const Grid grid = grid_of_range(static_cast<float>(rng.normal()),
                                        static_cast<float>(rng.normal()), options);
        EXPECT_EQ(grid.scale, float_from_f16(f16_from_float(grid.scale)));
        EXPECT_GE(grid.zero, 0.0f);
        EXPECT_LE(grid.zero, largest_code(bits));
        switch (stored_zero_kind(options)) {
          case ZeroKind::kU4:
            EXPECT_EQ(grid.zero, std::round(grid.zero));
            break;
          case ZeroKind::kU8:
            EXPECT_EQ(grid.zero * 16, std::round(grid.zero * 16));
            break;
          default:
            EXPECT_EQ(grid.zero, float_from_f16(f16_from_float(grid.zero)));
        }
      }
    }
}

TEST(Grid, HoldsZeroAndBothEnds) {
  const GridOptions options{.bits = 4};
  const Grid grid = grid_of_range(-0.3f, 1.2f, options);
  EXPECT_EQ(value_of(code_of(0.0f, grid, 15.0f), grid), 0.0f);
  EXPECT_NEAR(value_of(code_of(1.2f, grid, 15.0f), grid), 1.2f, grid.scale);
  EXPECT_NEAR(value_of(code_of(-0.3f, grid, 15.0f), grid), -0.3f, grid.scale);
  const Grid positive = grid_of_range(0.5f, 1.0f, options);  // 0 is forced inside
  EXPECT_EQ(positive.zero, 0.0f);
}

TEST(Grid, SurvivesAGroupOfZerosAndOfTinyAndHugeValues) {
  for (const bool symmetric : {false, true})
    for (const float size : {0.0f, 1e-30f, 1e-9f, 6e4f}) {
      const std::vector<float> w = {size, -size, size / 3, 0.0f};
      const Grid grid =
          grid_of(w.data(), nullptr, 4, {.bits = 4, .symmetric = symmetric, .search = true});
      ASSERT_GT(grid.scale, 0.0f);
      for (const float value : w) {
        const float back = value_of(code_of(value, grid, 15.0f), grid);
        ASSERT_TRUE(std::isfinite(back));
        EXPECT_LE(std::fabs(back - value), std::max(grid.scale * 1.01f, 1e-7f));
      }
    }
}

TEST(Grid, ErrorEqualsThePlainSum) {
  Rng rng(4);
  for (int64_t count = 1; count <= 35; ++count) {
    const std::vector<float> w = test::normal_values(count, rng);
    const std::vector<float> importance = test::uniform_values(count, rng, 0, 2);
    const Grid grid = grid_of(w.data(), importance.data(), count, {.bits = 3});
    const float expected = plain_error(w, importance, grid, 3);
    EXPECT_NEAR(grid_error(w.data(), importance.data(), count, grid, 7.0f), expected,
                1e-5f * expected + 1e-9f);
  }
}

TEST(Grid, SearchNeverLosesAndCutsOutliersThatDoNotMatter) {
  Rng rng(5);
  for (const bool symmetric : {false, true})
    for (int i = 0; i < 50; ++i) {
      std::vector<float> w = test::normal_values(96, rng);
      std::vector<float> importance(96, 1.0f);
      w[3] = 12.0f;
      importance[3] = 1e-3f;
      GridOptions options{.bits = 4, .symmetric = symmetric};
      const Grid plain = grid_of(w.data(), importance.data(), 96, options);
      options.search = true;
      const Grid found = grid_of(w.data(), importance.data(), 96, options);
      EXPECT_LT(grid_error(w.data(), importance.data(), 96, found, 15.0f),
                grid_error(w.data(), importance.data(), 96, plain, 15.0f));
    }
}

}  // namespace
}  // namespace spear
