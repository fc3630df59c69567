#include "support/closeness.h"

#include <cmath>
#include <limits>
#include <sstream>

#include "spear/base/check.h"

namespace spear::test {
namespace {

// How far an element is outside its bound: at most 1 is inside. Infinity for a NaN or infinity out
// of place.
double excess(double actual, double expected, double bound) {
  if (actual == expected || (std::isnan(actual) && std::isnan(expected))) return 0;
  const double difference = std::abs(actual - expected);
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  if (difference <= bound) return bound > 0 ? difference / bound : 0;
  return bound > 0 ? difference / bound : std::numeric_limits<double>::max();
}

}  // namespace

double gamma(int64_t n, double roundoff) {
  const double nu = static_cast<double>(n) * roundoff;
  expects(nu < 1);
  return nu / (1 - nu);
}

double dot_bound(int64_t k, double roundoff, double magnitude) {
  return gamma(k, roundoff) * magnitude;
}

std::vector<double> product_bounds(std::span<const float> x, std::span<const float> w, int64_t m,
                                   int64_t n, int64_t k, double roundoff) {
  expects(x.size() == static_cast<size_t>(m * k) && w.size() == static_cast<size_t>(n * k));
  std::vector<double> bounds;
  bounds.reserve(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double magnitude = 0;
      for (int64_t l = 0; l < k; ++l)
        magnitude += std::abs(static_cast<double>(x[static_cast<size_t>(i * k + l)]) *
                              static_cast<double>(w[static_cast<size_t>(j * k + l)]));
      bounds.push_back(dot_bound(k, roundoff, magnitude));
    }
  }
  return bounds;
}

::testing::AssertionResult within_bounds(std::span<const double> actual,
                                         std::span<const double> expected,
                                         std::span<const double> bounds, int64_t columns) {
  if (actual.size() != expected.size() || bounds.size() != expected.size())
    return ::testing::AssertionFailure() << actual.size() << " values, " << expected.size()
                                         << " expected, " << bounds.size() << " bounds";
  size_t worst = 0;
  double worst_excess = -1;
  size_t outside = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double e = excess(actual[i], expected[i], bounds[i]);
    if (e > 1) ++outside;
    if (e > worst_excess) {
      worst_excess = e;
      worst = i;
    }
  }
  if (outside == 0) return ::testing::AssertionSuccess();
  std::ostringstream text;
  text.precision(9);
  text << outside << " of " << actual.size() << " elements are out of bounds; the worst is at [";
  if (columns > 0) text << static_cast<int64_t>(worst) / columns << ", ";
  text << (columns > 0 ? static_cast<int64_t>(worst) % columns : static_cast<int64_t>(worst));
  text << "]: " << actual[worst] << ", expected " << expected[worst] << ", difference "
       << std::abs(actual[worst] - expected[worst]) << ", bound " << bounds[worst];
  return ::testing::AssertionFailure() << text.str();
}

}  // namespace spear::test
