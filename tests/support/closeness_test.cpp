#include "support/closeness.h"

#include <limits>
#include <string>

namespace spear::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::string report(const ::testing::AssertionResult& result) {
  EXPECT_FALSE(result);
  return result.message();
}

TEST(Closeness, AcceptsWhatLiesWithinTheBound) {
  const std::vector<float> expected = {1, -2, 0, kInfinity, kNan};
  EXPECT_TRUE(all_close(expected, expected, {}));
  const std::vector<float> near = {1.5f, -2.5f, 0.5f, kInfinity, kNan};
  EXPECT_TRUE(all_close(near, expected, {.absolute = 0.5}));
  EXPECT_FALSE(all_close(near, expected, {.absolute = 0.49}));
  EXPECT_TRUE(all_close(std::vector<float>{110}, std::vector<float>{100}, {.relative = 0.1}));
  EXPECT_FALSE(all_close(std::vector<float>{110}, std::vector<float>{-100}, {.relative = 0.1}));
}

TEST(Closeness, NamesTheWorstElementNotTheFirst) {
  const std::vector<float> expected = {0, 0, 0, 0, 0, 0};
  const std::vector<float> actual = {0, 2, 0, 0, 9, 3};
  const std::string text = report(all_close(actual, expected, {.absolute = 1, .columns = 3}));
  EXPECT_NE(text.find("3 of 6 elements"), std::string::npos) << text;
  EXPECT_NE(text.find("[1, 1]: 9, expected 0, difference 9, bound 1"), std::string::npos) << text;
}

TEST(Closeness, JudgesEachElementByItsOwnBound) {
  const std::vector<double> expected = {0, 0};
  const std::vector<double> bounds = {10, 0.1};
  const std::string text = report(all_within(std::vector<double>{9, 0.2}, expected, bounds));
  EXPECT_NE(text.find("[1]: 0.2"), std::string::npos) << text;
}

TEST(Closeness, RefusesNanAndInfinityOutOfPlace) {
  const Closeness loose = {.absolute = 1e30};
  EXPECT_FALSE(all_close(std::vector<float>{kNan}, std::vector<float>{0}, loose));
  EXPECT_FALSE(all_close(std::vector<float>{0}, std::vector<float>{kNan}, loose));
  EXPECT_FALSE(all_close(std::vector<float>{kInfinity}, std::vector<float>{0}, loose));
  EXPECT_FALSE(all_close(std::vector<float>{kInfinity}, std::vector<float>{-kInfinity}, loose));
}

TEST(Closeness, RefusesDifferentLengths) {
  EXPECT_FALSE(all_close(std::vector<float>{1, 2}, std::vector<float>{1}, {.absolute = 9}));
}

TEST(Closeness, DotBoundHoldsAndIsNotVacuous) {
  // 0.1f + 0.1f + ... in float against the exact sum of the same floats.
  constexpr int kTerms = 1000;
  float sum = 0;
  double exact = 0;
  for (int i = 0; i < kTerms; ++i) {
    sum += 0.1f;
    exact += static_cast<double>(0.1f);
  }
  const double bound = dot_bound(kTerms, kRoundoffF32, exact);
  EXPECT_LE(std::abs(static_cast<double>(sum) - exact), bound);
  EXPECT_GT(std::abs(static_cast<double>(sum) - exact), 0);
  EXPECT_LT(bound, 0.01);
}

TEST(Closeness, ProductBoundsFollowTheMagnitudes) {
  const std::vector<float> x = {1, -2, 0, 0};  // [2, 2]
  const std::vector<float> w = {3, 4};         // [1, 2]
  const std::vector<double> bounds = product_bounds(x, w, 2, 1, 2, kRoundoffF32);
  ASSERT_EQ(bounds.size(), 2u);
  EXPECT_DOUBLE_EQ(bounds[0], gamma(2, kRoundoffF32) * 11);
  EXPECT_EQ(bounds[1], 0);
}

}  // namespace
}  // namespace spear::test
