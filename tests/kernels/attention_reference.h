// One attention row in doubles with the bound of its computation in floats (docs/numerics.md).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/each_isa.h"
#include "support/closeness.h"

namespace spear::test {

struct AttentionRow {
  std::vector<double> p;           // [keys]
  std::vector<double> p_error;     // [keys] relative
  std::vector<double> y, y_bound;  // [head_dim]
  double log_sum = 0, log_sum_bound = 0;
};

// What INT8 attention rounds besides: q to 16 bits (half a step, and the roundings of the
// quotient), and each weight times its value's scale to 16 bits of the largest such product.
constexpr double kShortStep = 0.51 / 32767;

// key(t), value(t): pointers to rows of head_dim floats. `value_scales`: of INT8 values [keys], or
// null.
template <class Key, class Value>
AttentionRow attention_row(const float* q, Key key, Value value, int64_t keys, int64_t head_dim,
                           double scale, const float* value_scales = nullptr) {
  constexpr double u = kRoundoffF32;
  AttentionRow row;
  std::vector<double> scores, errors;
  double high = -INFINITY;
  double largest_q = 0;
  if (value_scales != nullptr)
    for (int64_t j = 0; j < head_dim; ++j)
      largest_q = std::max(largest_q, std::abs(static_cast<double>(q[j])));
  for (int64_t t = 0; t < keys; ++t) {
    double dot = 0;
    double magnitude = 0;
    double rounding_of_q = 0;
    for (int64_t j = 0; j < head_dim; ++j) {
      rounding_of_q += std::abs(static_cast<double>(key(t)[j])) * largest_q * kShortStep;
      dot += static_cast<double>(q[j]) * key(t)[j];
      magnitude += std::abs(static_cast<double>(q[j]) * key(t)[j]);
    }
    scores.push_back(dot * scale);
    errors.push_back((gamma(head_dim + 3, u) * magnitude + rounding_of_q) * scale);
    high = std::max(high, scores.back());
  }
  double lowest = high;
  double total = 0;
  for (const double s : scores) {
    total += std::exp(s - high);
    lowest = std::min(lowest, s);
  }
  // Blocks of keys rescale what came before: one exponential and two products a block.
  const double blocks = static_cast<double>(keys) / 16 + 1;
  const double rescaling = blocks * (kExpError + 3) * u + (high - lowest) * u;
  double average = 0;
  for (int64_t t = 0; t < keys; ++t) {
    row.p.push_back(std::exp(scores[t] - high) / total);
    row.p_error.push_back(errors[t] + (high - scores[t] + kExpError + 1) * u + rescaling);
    average += row.p[t] * row.p_error[t];
  }
  average += gamma(keys, u);
  double step = 0;  // of a weight times a scale
  if (value_scales != nullptr)
    for (int64_t t = 0; t < keys; ++t)
      step = std::max(step, row.p[t] * (1 + row.p_error[t]) * value_scales[t] * kShortStep);
  for (int64_t j = 0; j < head_dim; ++j) {
    double y = 0;
    double bound = 0;
    for (int64_t t = 0; t < keys; ++t) {
      const double term = row.p[t] * value(t)[j];
      y += term;
      bound += std::abs(term) * (row.p_error[t] + gamma(keys + 1, u));
      if (step > 0 && value_scales[t] > 0)
        bound += std::abs(static_cast<double>(value(t)[j])) / value_scales[t] * step;
    }
    row.y.push_back(y);
    row.y_bound.push_back(bound + std::abs(y) * (average + 3 * u));
  }
  row.log_sum = high + std::log(total);
  row.log_sum_bound = average + 2 * u * (std::abs(row.log_sum) + std::abs(high) + 1);
  return row;
}

}  // namespace spear::test
