// The few statistics that results are stated with: means with standard errors by bootstrap over
// windows, quantiles, the histogram of per-token KL. Pure functions; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace spear {

// A mean and what resampling whole windows says about it: tokens of one window are not independent.
struct Interval {
  double mean = 0;
  double standard_error = 0;  // NaN with one window
  double low = 0, high = 0;   // 95 %
};

// `values` are [windows, per_window]. The same seed draws the same windows, so that differences of
// models evaluated on the same windows are paired.
Interval bootstrap_mean(std::span<const float> values, int64_t per_window, uint64_t seed);
// Of the difference a - b, window by window.
Interval bootstrap_difference(std::span<const float> a, std::span<const float> b,
                              int64_t per_window, uint64_t seed);

double mean_of(std::span<const float> values);
// sqrt(variance / (n - 1)) of independent values, as llama.cpp states it; NaN for fewer than two.
double token_standard_error(std::span<const float> values);
// The value below which a share of `q` lies, interpolated between neighbours. Reorders a copy.
double quantile(std::span<const float> values, double q);

// Counts by size on a logarithmic axis: below 1e-6, four bins a decade up to 10, above.
struct KlHistogram {
  static constexpr int kBinsPerDecade = 4;
  static constexpr int kFirstExponent = -6;
  static constexpr int kDecades = 7;
  static constexpr int kBins = kBinsPerDecade * kDecades + 2;
  std::array<int64_t, kBins> counts{};

  // The upper edge of bin i (infinity for the last).
  static double upper_edge(int bin);
  void add(double value);
};
KlHistogram histogram_of(std::span<const float> kl);

}  // namespace spear
