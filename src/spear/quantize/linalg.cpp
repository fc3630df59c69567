#include "spear/quantize/linalg.h"

#include <algorithm>
#include <eigen3/Eigen/Dense>
#include <numeric>

#include "spear/base/check.h"

namespace spear {
namespace {

using Dense = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Mapped = Eigen::Map<Dense>;
using ConstMapped = Eigen::Map<const Dense>;
using Part = Eigen::Ref<Dense, 0, Eigen::OuterStride<>>;

Mapped map(Matrix& a) {
  return {a.values.data(), a.rows, a.columns};
}
ConstMapped map(const Matrix& a) {
  return {a.values.data(), a.rows, a.columns};
}

// inv([A 0; B C]) = [A⁻¹ 0; −C⁻¹·B·A⁻¹ C⁻¹], down to blocks that fit the first cache.
void invert_lower(Part lower) {
  constexpr int64_t kSmall = 64;
  const int64_t n = lower.rows();
  if (n <= kSmall) {
    Dense inverse = Dense::Identity(n, n);
    lower.triangularView<Eigen::Lower>().solveInPlace(inverse);
    lower.triangularView<Eigen::Lower>() = inverse;
    return;
  }
  const int64_t half = n / 2;
  Part a(lower.topLeftCorner(half, half));
  Part c(lower.bottomRightCorner(n - half, n - half));
  invert_lower(a);
  invert_lower(c);
  Dense product = lower.bottomLeftCorner(n - half, half) * a.triangularView<Eigen::Lower>();
  lower.bottomLeftCorner(n - half, half) = -(c.triangularView<Eigen::Lower>() * product);
}

}  // namespace

Matrix widen(std::span<const float> values, int64_t rows, int64_t columns) {
  expects(static_cast<int64_t>(values.size()) == rows * columns);
  Matrix wide(rows, columns);
  std::copy(values.begin(), values.end(), wide.values.begin());
  return wide;
}

Matrix multiply(const Matrix& a, Transpose transpose_a, const Matrix& b, Transpose transpose_b) {
  const bool ta = transpose_a == Transpose::kYes, tb = transpose_b == Transpose::kYes;
  expects((ta ? a.rows : a.columns) == (tb ? b.columns : b.rows));
  Matrix c(ta ? a.columns : a.rows, tb ? b.rows : b.columns);
  if (c.values.empty()) return c;
  if (ta && tb) {
    map(c).noalias() = map(a).transpose() * map(b).transpose();
  } else if (ta) {
    map(c).noalias() = map(a).transpose() * map(b);
  } else if (tb) {
    map(c).noalias() = map(a) * map(b).transpose();
  } else {
    map(c).noalias() = map(a) * map(b);
  }
  return c;
}

bool cholesky_in_place(Matrix& a) {
  expects(a.rows == a.columns);
  Mapped mapped = map(a);
  Eigen::Ref<Dense> whole(mapped);
  const Eigen::LLT<Eigen::Ref<Dense>, Eigen::Lower> factor(whole);
  if (factor.info() != Eigen::Success) return false;
  mapped.triangularView<Eigen::StrictlyUpper>().setZero();
  return true;
}

void invert_lower_in_place(Matrix& lower) {
  expects(lower.rows == lower.columns);
  if (lower.rows > 0) invert_lower(Part(map(lower)));
}

bool inverse_cholesky_upper_in_place(Matrix& h) {
  // With J the reversal, J·H·J = L·Lᵀ gives H = V·Vᵀ for the upper triangular V = J·L·J; U = V⁻¹ =
  // J·L⁻¹·J.
  std::reverse(h.values.begin(), h.values.end());
  if (!cholesky_in_place(h)) return false;
  invert_lower_in_place(h);
  std::reverse(h.values.begin(), h.values.end());
  return true;
}

SymmetricEigen symmetric_eigen(const Matrix& a) {
  expects(a.rows == a.columns);
  const Eigen::SelfAdjointEigenSolver<Dense> solver(map(a));
  expects(solver.info() == Eigen::Success);
  SymmetricEigen result{{}, Matrix(a.rows, a.rows)};
  const auto ascending = solver.eigenvalues();
  for (int64_t i = a.rows; i-- > 0;) result.values.push_back(ascending[i]);
  map(result.vectors) = solver.eigenvectors().rowwise().reverse();
  return result;
}

Matrix orthonormal_columns(const Matrix& a) {
  expects(a.rows >= a.columns);
  const Eigen::HouseholderQR<Dense> qr(map(a));
  Matrix q(a.rows, a.columns);
  map(q) = qr.householderQ() * Dense::Identity(a.rows, a.columns);
  return q;
}

Matrix random_orthogonal(int64_t n, Rng& rng) {
  Dense normal(n, n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) normal(i, j) = rng.normal();
  const Eigen::HouseholderQR<Dense> qr(normal);
  Matrix q(n, n);
  map(q) = qr.householderQ() * Dense::Identity(n, n);
  for (int64_t j = 0; j < n; ++j)
    if (qr.matrixQR()(j, j) < 0) map(q).col(j) *= -1.0;
  return q;
}

TopEigen top_eigen(const std::function<Matrix(const Matrix&)>& apply, int64_t n, int64_t r, Rng rng,
                   int64_t oversample, int power_iterations) {
  expects(r >= 0 && r <= n);
  const int64_t width = std::min(n, r + oversample);
  Matrix block(n, width);
  for (double& value : block.values) value = rng.normal();
  for (int step = 0; step <= power_iterations; ++step) block = orthonormal_columns(apply(block));
  const Matrix image = apply(block);
  const SymmetricEigen small =
      symmetric_eigen(multiply(block, Transpose::kYes, image, Transpose::kNo));
  TopEigen result;
  result.vectors = Matrix(n, r);
  map(result.vectors).noalias() = map(block) * map(small.vectors).leftCols(r);
  for (int64_t i = 0; i < r; ++i)
    result.values.push_back(std::max(0.0, small.values[static_cast<size_t>(i)]));
  return result;
}

}  // namespace spear
