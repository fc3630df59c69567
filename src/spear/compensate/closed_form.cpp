#include "spear/compensate/closed_form.h"

#include <algorithm>
#include <cmath>

#include "spear/base/check.h"
#include "spear/quantize/linalg.h"

namespace spear {
namespace {

constexpr double kNegligible =
    1e-14;  // of the error: a rank that takes less is rounding, and is left zero

// E·R, by metric.
Matrix times_metric(const Matrix& e, const float* covariance, FactorMetric metric) {
  if (metric == FactorMetric::kPlain) return e;
  const int64_t k = e.columns;
  if (metric == FactorMetric::kCovariance)
    return multiply(e, widen({covariance, static_cast<size_t>(k * k)}, k, k));
  Matrix scaled = e;
  for (int64_t i = 0; i < e.rows; ++i)
    for (int64_t j = 0; j < k; ++j) scaled(i, j) *= covariance[j * k + j];
  return scaled;
}

double trace_of_product(const Matrix& a, const Matrix& b) {  // tr(a·bᵀ)
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

CompensatorValues whitened(const Matrix& e, const TopEigen& top, int32_t rank, double error) {
  CompensatorValues factors;
  factors.rank = rank;
  factors.n = static_cast<int32_t>(e.rows);
  factors.k = static_cast<int32_t>(e.columns);
  factors.a.resize(static_cast<size_t>(int64_t{rank} * e.columns));
  factors.b.resize(static_cast<size_t>(int64_t{rank} * e.rows));
  const Matrix projected = multiply(top.vectors, Transpose::kYes, e, Transpose::kNo);  // Uᵀ·E
  for (int64_t r = 0; r < rank; ++r) {
    const double gain = top.values[static_cast<size_t>(r)];
    if (!(gain > kNegligible * error)) break;
    const double size = std::sqrt(gain);
    for (int64_t j = 0; j < e.columns; ++j)
      factors.a[static_cast<size_t>(r * e.columns + j)] =
          static_cast<float>(projected(r, j) / size);
    for (int64_t i = 0; i < e.rows; ++i)
      factors.b[static_cast<size_t>(r * e.rows + i)] = static_cast<float>(top.vectors(i, r) * size);
  }
  return factors;
}

}  // namespace

ClosedForm closed_form(const float* residual, int64_t n, int64_t k, const float* covariance,
                       const ClosedFormOptions& options) {
  const int64_t most = std::min(n, k);
  expects(options.rank >= 0 && options.rank <= most);
  const Matrix e = widen({residual, static_cast<size_t>(n * k)}, n, k);
  const Matrix er = times_metric(e, covariance, options.metric);
  ClosedForm result;
  result.error = std::max(0.0, trace_of_product(er, e));
  const int64_t wanted = std::min<int64_t>(most, std::max(options.rank, options.spectrum));
  const auto apply = [&](const Matrix& x) {  // E·R·Eᵀ·x
    return multiply(er, multiply(e, Transpose::kYes, x, Transpose::kNo));
  };
  const TopEigen top = top_eigen(apply, n, wanted, Rng(options.seed));
  result.gains = top.values;
  TopEigen leading = top;
  if (wanted > options.rank) {
    leading.vectors = Matrix(n, options.rank);
    for (int64_t i = 0; i < n; ++i)
      std::copy_n(top.vectors.row(i), options.rank, leading.vectors.row(i));
  }
  result.factors = whitened(e, leading, options.rank, result.error);
  return result;
}

CompensatorValues truncated(const CompensatorValues& factors, int32_t rank) {
  expects(rank >= 0 && rank <= factors.rank && factors.gate_hidden == 0);
  CompensatorValues out = factors;
  out.rank = rank;
  out.a.resize(static_cast<size_t>(int64_t{rank} * factors.k));
  out.b.resize(static_cast<size_t>(int64_t{rank} * factors.n));
  return out;
}

void subtract_product(const CompensatorValues& factors, float* residual) {
  const int64_t n = factors.n, k = factors.k;
  for (int64_t r = 0; r < factors.rank; ++r)
    for (int64_t i = 0; i < n; ++i) {
      const float b = factors.b[static_cast<size_t>(r * n + i)];
      const float* a = factors.a.data() + r * k;
      float* row = residual + i * k;
      for (int64_t j = 0; j < k; ++j) row[j] -= b * a[j];
    }
}

std::vector<float> residual_of(const float* weight, const UnpackedMatrix& quantized) {
  const int64_t k = quantized.k, group = quantized.group, groups = k / group;
  std::vector<float> residual(quantized.codes.size());
  for (int64_t i = 0; i < quantized.n; ++i)
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = quantized.scales[static_cast<size_t>(i * groups + g)];
      const float zero = quantized.zeros[static_cast<size_t>(i * groups + g)];
      const auto first = static_cast<size_t>(i * k + g * group);
      for (size_t j = first; j < first + static_cast<size_t>(group); ++j)
        residual[j] = weight[j] - scale * (static_cast<float>(quantized.codes[j]) - zero);
    }
  return residual;
}

}  // namespace spear
