// Compares a fast result with a slow and obvious one, element by element, and reports the worst
// element: its position, both values, the difference and the bound. Bounds are derived
// (docs/numerics.md), never tuned.
//   EXPECT_TRUE(all_within(fast, slow, bounds, {.columns = n}));     one bound per element
//   EXPECT_TRUE(all_close(fast, slow, {.absolute = 1e-6}));          one bound for all
// An element of `actual` that is NaN fails wherever `expected` is not NaN. Stateless: any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <gtest/gtest.h>

namespace spear::test {

// Unit roundoffs: half the distance between 1 and the next number of the type.
inline constexpr double kRoundoffF32 = 0x1p-24;
inline constexpr double kRoundoffF16 = 0x1p-11;
inline constexpr double kRoundoffBF16 = 0x1p-8;
inline constexpr double kRoundoffF64 = 0x1p-53;

// Higham's gamma: the relative error of a sum of n rounded terms, in any order, is below
// n u / (1 - n u) of the sum of their absolute values.
double gamma(int64_t n, double roundoff);

// Bound of |computed - exact| for a dot product of k terms whose absolute products sum to
// `magnitude`, with products and sums rounded at `roundoff`.
double dot_bound(int64_t k, double roundoff, double magnitude);

// The same for every element of y[m, n] = x[m, k] w[n, k]^T.
std::vector<double> product_bounds(std::span<const float> x,  // [m, k]
                                   std::span<const float> w,  // [n, k]
                                   int64_t m, int64_t n, int64_t k, double roundoff);

struct Closeness {
  double absolute = 0;
  double relative = 0;  // of the expected value's magnitude
  int64_t columns = 0;  // when set, positions are printed as [row, column]
};

// The layout of elements in a report.
struct Layout {
  int64_t columns = 0;
};

::testing::AssertionResult within_bounds(std::span<const double> actual,
                                         std::span<const double> expected,
                                         std::span<const double> bounds, int64_t columns);

template <class Range>
std::vector<double> as_doubles(const Range& values) {
  return std::vector<double>(std::begin(values), std::end(values));
}

template <class Actual, class Expected>
::testing::AssertionResult all_within(const Actual& actual, const Expected& expected,
                                      std::span<const double> bounds, Layout layout = {}) {
  return within_bounds(as_doubles(actual), as_doubles(expected), bounds, layout.columns);
}

template <class Actual, class Expected>
::testing::AssertionResult all_close(const Actual& actual, const Expected& expected,
                                     Closeness closeness) {
  const std::vector<double> reference = as_doubles(expected);
  std::vector<double> bounds;
  bounds.reserve(reference.size());
  for (const double value : reference)
    bounds.push_back(closeness.absolute + closeness.relative * (value < 0 ? -value : value));
  return within_bounds(as_doubles(actual), reference, bounds, closeness.columns);
}

}  // namespace spear::test
