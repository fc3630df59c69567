// The error of a quantized matrix as the layer's output sees it, computed plainly in double:
// tr(E·R·Eᵀ).
#pragma once

#include <cmath>
#include <vector>

#include "spear/base/rng.h"
#include "spear/model/quantized_model.h"

namespace spear::test {

inline float dequantized(const UnpackedMatrix& q, int64_t row, int64_t column) {
  const auto group = static_cast<size_t>(row * (q.k / q.group) + column / q.group);
  return q.scales[group] *
         (static_cast<float>(q.codes[static_cast<size_t>(row * q.k + column)]) - q.zeros[group]);
}

inline double covariance_error(const std::vector<float>& weight,  // [n, k]
                               const UnpackedMatrix& q,
                               const std::vector<float>& covariance) {  // [k, k]
  double total = 0;
  std::vector<double> error(static_cast<size_t>(q.k));
  for (int64_t i = 0; i < q.n; ++i) {
    for (int64_t j = 0; j < q.k; ++j)
      error[static_cast<size_t>(j)] =
          static_cast<double>(weight[static_cast<size_t>(i * q.k + j)]) - dequantized(q, i, j);
    for (int64_t a = 0; a < q.k; ++a)
      for (int64_t b = 0; b < q.k; ++b)
        total += error[static_cast<size_t>(a)] * error[static_cast<size_t>(b)] *
                 covariance[static_cast<size_t>(a * q.k + b)];
  }
  return total;
}

// E[x·xᵀ] of `samples` random rows whose columns are mixed and of different size.
inline std::vector<float> random_covariance(int64_t k, int64_t samples, Rng& rng) {
  std::vector<double> mix(static_cast<size_t>(k * k)), sum(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k * k; ++i)
    mix[static_cast<size_t>(i)] =
        rng.normal() / std::sqrt(static_cast<double>(k)) + (i % (k + 1) == 0 ? 1 : 0);
  std::vector<double> x(static_cast<size_t>(k)), z(static_cast<size_t>(k));
  for (int64_t s = 0; s < samples; ++s) {
    for (double& value : z) value = rng.normal();
    for (int64_t i = 0; i < k; ++i) {
      x[static_cast<size_t>(i)] = 0;
      for (int64_t j = 0; j < k; ++j)
        x[static_cast<size_t>(i)] +=
            mix[static_cast<size_t>(i * k + j)] * z[static_cast<size_t>(j)];
    }
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j)
        sum[static_cast<size_t>(i * k + j)] +=
            x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)];
  }
  std::vector<float> out(sum.size());
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = i; j < k; ++j)
      out[static_cast<size_t>(i * k + j)] = out[static_cast<size_t>(j * k + i)] =
          static_cast<float>(sum[static_cast<size_t>(i * k + j)] / static_cast<double>(samples));
  return out;
}

}  // namespace spear::test
