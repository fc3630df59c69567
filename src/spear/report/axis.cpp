#include "spear/report/axis.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "spear/base/check.h"

namespace spear {
namespace {

std::string with_thousands(int64_t value) {
  std::string digits = fmt::format("{}", value < 0 ? -value : value);
  for (auto place = static_cast<std::ptrdiff_t>(digits.size()) - 3; place > 0; place -= 3)
    digits.insert(static_cast<size_t>(place), ",");
  return (value < 0 ? "-" : "") + digits;
}

// "1e-06" is written 1e-6.
std::string without_padding(std::string text) {
  const size_t exponent = text.find('e');
  if (exponent == std::string::npos) return text;
  const size_t digits = exponent + 2;
  while (text.size() > digits + 1 && text[digits] == '0') text.erase(digits, 1);
  return text;
}

}  // namespace

std::string short_number(double value) {
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (!std::isfinite(value)) return "–";
  if (magnitude < 9.99e-4 || magnitude >= 1e9) return without_padding(fmt::format("{:.3g}", value));
  if (magnitude >= 1000 && value == std::round(value))
    return with_thousands(static_cast<int64_t>(value));
  return fmt::format("{:.6g}", value);
}

Axis Axis::linear(double low, double high, double begin, double end) {
  expects(std::isfinite(low) && std::isfinite(high) && low <= high);
  if (low == high) {
    low -= 0.5;
    high += 0.5;
  }
  return {low, high, begin, end, false};
}

Axis Axis::logarithmic(double low, double high, double begin, double end) {
  expects(low > 0 && std::isfinite(high) && low <= high);
  if (high / low < 1.5) {
    low /= 1.3;
    high *= 1.3;
  }
  return {low, high, begin, end, true};
}

double Axis::at(double value) const {
  const double inside = std::clamp(value, low_, high_);
  const double share = logarithmic_ ? std::log(inside / low_) / std::log(high_ / low_)
                                    : (inside - low_) / (high_ - low_);
  return begin_ + share * (end_ - begin_);
}

std::vector<Axis::Tick> Axis::ticks(int count) const {
  return logarithmic_ ? logarithmic_ticks(count) : linear_ticks(count);
}

std::vector<Axis::Tick> Axis::linear_ticks(int count) const {
  const double raw = (high_ - low_) / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (raw <= factor * power) step = factor * power;
  std::vector<Tick> ticks;
  for (double i = std::ceil(low_ / step - 1e-9); i * step <= high_ + step * 1e-9; ++i)
    ticks.push_back({i * step, short_number(std::round(i * step / power) * power)});
  return ticks;
}

std::vector<Axis::Tick> Axis::logarithmic_ticks(int count) const {
  std::vector<Tick> ticks;
  const double decades = std::log10(high_ / low_);
  const double skip = std::max(1.0, std::ceil(decades / count));
  const auto within = [&](double value) {
    return value >= low_ * (1 - 1e-9) && value <= high_ * (1 + 1e-9);
  };
  for (double exponent = std::floor(std::log10(low_)); exponent <= std::log10(high_);
       exponent += skip)
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades > 3.2) continue;
      const double value = factor * std::pow(10.0, exponent);
      if (within(value)) ticks.push_back({value, short_number(value)});
    }
  // Less than a decade: round steps as on a linear axis.
  if (ticks.size() < 3) return linear_ticks(count);
  return ticks;
}

}  // namespace spear
