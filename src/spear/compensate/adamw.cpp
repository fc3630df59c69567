#include "spear/compensate/adamw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "spear/base/check.h"

namespace spear {

double schedule_factor(const AdamWOptions& options, int64_t step) {
  if (options.schedule == Schedule::kConstant) return 1.0;
  const double rise =
      options.warmup > 0
          ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(options.warmup))
          : 1.0;
  const double part = std::min(
      1.0, static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, options.steps)));
  return rise *
         (options.floor + (1 - options.floor) * 0.5 * (1 + std::cos(std::numbers::pi * part)));
}

AdamW::AdamW(const AdamWOptions& options, size_t count) : options_(options) {
  state_.first.assign(count, 0.0f);
  state_.second.assign(count, 0.0f);
}

double AdamW::step(std::span<float> values, std::span<const float> gradients,
                   std::span<const float> rates, std::span<const float> gains) {
  const size_t count = values.size();
  expects(gradients.size() == count && rates.size() == count && gains.size() == count &&
          state_.first.size() == count);
  double square = 0;
  for (size_t i = 0; i < count; ++i)
    if (rates[i] != 0) square += std::pow(static_cast<double>(gradients[i]) * gains[i], 2);
  const double norm = std::sqrt(square);
  const double shrink =
      options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
  const double factor = schedule_factor(options_, state_.step);
  const auto t = static_cast<double>(++state_.step);
  const double unbias1 = 1 - std::pow(options_.beta1, t);
  const double unbias2 = 1 - std::pow(options_.beta2, t);
  for (size_t i = 0; i < count; ++i) {
    if (rates[i] == 0) continue;
    const double g = shrink * static_cast<double>(gradients[i]) * gains[i];
    const double first = options_.beta1 * state_.first[i] + (1 - options_.beta1) * g;
    const double second = options_.beta2 * state_.second[i] + (1 - options_.beta2) * g * g;
    state_.first[i] = static_cast<float>(first);
    state_.second[i] = static_cast<float>(second);
    const double move = first / unbias1 / (std::sqrt(second / unbias2) + options_.epsilon);
    const double decay = options_.weight_decay * static_cast<double>(values[i]) / gains[i];
    values[i] -= static_cast<float>(factor * rates[i] * gains[i] * (move + decay));
  }
  return norm;
}

}  // namespace spear
