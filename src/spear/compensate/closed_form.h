// Low-rank compensators without a gradient: the rank-r matrix B·A that takes most of a weight's
// error E away, in the metric of the layer's output. QERA-exact, EoRA and ASER are one solution (B
// = leading eigenvectors of E·R·Eᵀ, A = Bᵀ·E); it needs no inverse of R, so R may be singular.
// Plain SVD is R = I, LQER is R = its diagonal. Called from one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/model/quantized_model.h"

namespace spear {

enum class FactorMetric : uint8_t { kPlain, kDiagonal, kCovariance };

struct ClosedForm {
  CompensatorValues factors;  // whitened: B·A unchanged, and E[z·zᵀ] = I for z = A·x in the metric
  double error = 0;           // tr(E·R·Eᵀ) before
  std::vector<double> gains;  // what each rank takes from it, descending; at least `rank` values
};

struct ClosedFormOptions {
  FactorMetric metric = FactorMetric::kCovariance;
  int32_t rank = 0;      // at most min(n, k)
  int32_t spectrum = 0;  // gains wanted beyond the rank, cut to min(n, k)
  uint64_t seed = 1;     // of the randomised range finder
};

ClosedForm closed_form(const float* residual,  // [n, k]
                       int64_t n, int64_t k,
                       const float* covariance,  // [k, k]; not read by kPlain
                       const ClosedFormOptions& options);

// The same factors with their first `rank` rows: the solution of that rank, for ranks are nested.
CompensatorValues truncated(const CompensatorValues& factors, int32_t rank);

// residual −= B·A
void subtract_product(const CompensatorValues& factors, float* residual);  // [n, k]

// weight − scale·(code − zero)
std::vector<float> residual_of(const float* weight, const UnpackedMatrix& quantized);  // [n, k]

}  // namespace spear
