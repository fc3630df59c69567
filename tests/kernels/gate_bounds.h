// γ(u) ⊙ u in double, with the bound of what a float evaluation of a uncertain u may differ.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "spear/kernels/w4_linear.h"

#include "support/closeness.h"

namespace spear::test {

struct Gated {
  std::vector<double> value, error;
};

inline Gated gate_with_bounds(const CompensatorView& ec, const std::vector<double>& u,
                              const std::vector<double>& u_error) {
  constexpr double kU = kRoundoffF32;
  if (ec.gate_hidden == 0) return {u, u_error};
  std::vector<double> h, h_error;
  for (int64_t i = 0; i < ec.gate_hidden; ++i) {
    double sum = float_from_f16(ec.b1[i]), size = std::abs(sum), error = 0;
    for (int64_t r = 0; r < ec.rank; ++r) {
      const double w = float_from_f16(ec.w1[i * ec.rank + r]);
      sum += w * u[r];
      size += std::abs(w * u[r]);
      error += std::abs(w) * u_error[r];
    }
    h.push_back(std::max(sum, 0.0));
    h_error.push_back(error + gamma(ec.rank + 1, kU) * (size + error));
  }
  Gated out;
  for (int64_t r = 0; r < ec.rank; ++r) {
    double sum = float_from_f16(ec.b2[r]), size = std::abs(sum), error = 0;
    for (int64_t i = 0; i < ec.gate_hidden; ++i) {
      const double w = float_from_f16(ec.w2[r * ec.gate_hidden + i]);
      sum += w * h[i];
      size += std::abs(w * h[i]);
      error += std::abs(w) * h_error[i];
    }
    error += gamma(ec.gate_hidden + 1, kU) * (size + error);
    out.value.push_back((1 + std::tanh(sum)) * u[r]);
    // tanh has slope at most 1; its own rounding, a sum's and a product's.
    out.error.push_back(2 * u_error[r] + (std::abs(u[r]) + u_error[r]) * (error + 8 * kU));
  }
  return out;
}

}  // namespace spear::test
