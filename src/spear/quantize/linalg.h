// FP64 linear algebra of the quantizers and compensators: products, Cholesky factors, symmetric
// eigenvectors, orthonormal bases. Works through Eigen (and OpenBLAS where the build has it); only
// linalg.cpp sees either. Big calls use the library's own threads: call from one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "spear/base/rng.h"
#include "spear/quantize/matrix.h"

namespace spear {

enum class Transpose : bool { kNo, kYes };

// op(a) · op(b)
Matrix multiply(const Matrix& a, Transpose transpose_a, const Matrix& b, Transpose transpose_b);
inline Matrix multiply(const Matrix& a, const Matrix& b) {
  return multiply(a, Transpose::kNo, b, Transpose::kNo);
}

// Overwrites the symmetric matrix (its lower triangle is read) by L with L·Lᵀ = a, zeros above.
// False when a pivot is not positive: the contents are lost then.
[[nodiscard]] bool cholesky_in_place(Matrix& a);

// Overwrites a lower triangular matrix by its inverse; the diagonal must not hold zeros.
void invert_lower_in_place(Matrix& lower);

// Overwrites a symmetric positive definite H by the upper triangular U with Uᵀ·U = H⁻¹ (GPTQ's
// factor): one Cholesky factorisation of H reversed and one triangular inverse, never H⁻¹ itself.
// False as cholesky_in_place().
[[nodiscard]] bool inverse_cholesky_upper_in_place(Matrix& h);

struct SymmetricEigen {
  std::vector<double> values;  // descending
  Matrix vectors;              // [n, n]: column i belongs to values[i]
};
SymmetricEigen symmetric_eigen(const Matrix& a);

// Orthonormal basis of the columns of a [m, r], m >= r: the thin Q of its QR factorisation.
Matrix orthonormal_columns(const Matrix& a);

// A random orthogonal matrix: Q of a normal matrix, signs fixed so that R's diagonal is positive
// (Haar measure).
Matrix random_orthogonal(int64_t n, Rng& rng);

struct TopEigen {
  std::vector<double> values;  // descending, [r]
  Matrix vectors;              // [n, r], orthonormal columns
};
// Leading eigenpairs of a symmetric positive semidefinite operator given as x -> S·x on [n, c]
// blocks, by a randomised range finder with power iterations (Halko, Martinsson, Tropp 2011).
// Deterministic in `rng`.
TopEigen top_eigen(const std::function<Matrix(const Matrix&)>& apply, int64_t n, int64_t r, Rng rng,
                   int64_t oversample = 16, int power_iterations = 3);

}  // namespace spear
