#include "spear/eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "spear/base/check.h"
#include "spear/base/rng.h"

namespace spear {
namespace {

constexpr int kResamples = 1000;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<double> window_means(std::span<const float> values, int64_t per_window) {
  expects(per_window > 0 && static_cast<int64_t>(values.size()) % per_window == 0);
  std::vector<double> means;
  for (size_t begin = 0; begin < values.size(); begin += static_cast<size_t>(per_window))
    means.push_back(mean_of(values.subspan(begin, static_cast<size_t>(per_window))));
  return means;
}

double sorted_quantile(const std::vector<double>& sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double fraction = place - static_cast<double>(below);
  return sorted[below] * (1 - fraction) + sorted[above] * fraction;
}

Interval bootstrap(const std::vector<double>& windows, uint64_t seed) {
  expects(!windows.empty());
  const auto count = static_cast<uint32_t>(windows.size());
  double sum = 0;
  for (const double value : windows) sum += value;
  Interval interval{.mean = sum / count, .standard_error = kNaN, .low = kNaN, .high = kNaN};
  if (count == 1) return interval;

  Rng rng(seed);
  std::vector<double> means(kResamples);
  for (double& mean : means) {
    double total = 0;
    for (uint32_t i = 0; i < count; ++i) total += windows[rng.below(count)];
    mean = total / count;
  }
  double centre = 0;
  for (const double mean : means) centre += mean / kResamples;
  double squares = 0;
  for (const double mean : means) squares += (mean - centre) * (mean - centre);
  std::sort(means.begin(), means.end());
  interval.standard_error = std::sqrt(squares / (kResamples - 1));
  interval.low = sorted_quantile(means, 0.025);
  interval.high = sorted_quantile(means, 0.975);
  return interval;
}

}  // namespace

Interval bootstrap_mean(std::span<const float> values, int64_t per_window, uint64_t seed) {
  return bootstrap(window_means(values, per_window), seed);
}

Interval bootstrap_difference(std::span<const float> a, std::span<const float> b,
                              int64_t per_window, uint64_t seed) {
  expects(a.size() == b.size());
  std::vector<double> windows = window_means(a, per_window);
  const std::vector<double> others = window_means(b, per_window);
  for (size_t i = 0; i < windows.size(); ++i) windows[i] -= others[i];
  return bootstrap(windows, seed);
}

double mean_of(std::span<const float> values) {
  expects(!values.empty());
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

double token_standard_error(std::span<const float> values) {
  if (values.size() < 2) return kNaN;
  const double mean = mean_of(values);
  double squares = 0;
  for (const float value : values) squares += (value - mean) * (value - mean);
  const auto n = static_cast<double>(values.size());
  return std::sqrt(squares / n / (n - 1));
}

double quantile(std::span<const float> values, double q) {
  expects(!values.empty());
  std::vector<float> copy(values.begin(), values.end());
  const double place = q * static_cast<double>(copy.size() - 1);
  const auto below = static_cast<std::ptrdiff_t>(place);
  std::nth_element(copy.begin(), copy.begin() + below, copy.end());
  const auto low = static_cast<double>(copy[static_cast<size_t>(below)]);
  if (static_cast<size_t>(below) + 1 == copy.size()) return low;
  const auto high = static_cast<double>(*std::min_element(copy.begin() + below + 1, copy.end()));
  return low + (high - low) * (place - static_cast<double>(below));
}

double KlHistogram::upper_edge(int bin) {
  if (bin >= kBins - 1) return std::numeric_limits<double>::infinity();
  return std::pow(10.0, kFirstExponent + static_cast<double>(bin) / kBinsPerDecade);
}

void KlHistogram::add(double value) {
  // Rounding makes the KL of equal distributions a tiny number of either sign: the first bin.
  int bin = 0;
  if (value >= upper_edge(0)) {
    const double place = (std::log10(value) - kFirstExponent) * kBinsPerDecade;
    bin = 1 + static_cast<int>(std::min(place, static_cast<double>(kBins - 2)));
  }
  ++counts[static_cast<size_t>(std::min(bin, kBins - 1))];
}

KlHistogram histogram_of(std::span<const float> kl) {
  KlHistogram histogram;
  for (const float value : kl) histogram.add(static_cast<double>(value));
  return histogram;
}

}  // namespace spear
