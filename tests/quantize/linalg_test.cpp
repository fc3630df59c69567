#include "spear/quantize/linalg.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "support/closeness.h"

namespace spear {
namespace {

using test::all_close;

Matrix random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  Rng rng(seed);
  Matrix a(rows, columns);
  for (double& value : a.values) value = rng.normal();
  return a;
}

Matrix plain_product(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.columns);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < b.columns; ++j)
      for (int64_t l = 0; l < a.columns; ++l) c(i, j) += a(i, l) * b(l, j);
  return c;
}

Matrix transposed(const Matrix& a) {
  Matrix t(a.columns, a.rows);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < a.columns; ++j) t(j, i) = a(i, j);
  return t;
}

Matrix identity(int64_t n) {
  Matrix a(n, n);
  for (int64_t i = 0; i < n; ++i) a(i, i) = 1;
  return a;
}

// Well conditioned, so that the bounds below need no condition number.
Matrix positive_definite(int64_t n, uint64_t seed) {
  const Matrix a = random_matrix(n, n, seed);
  Matrix h = plain_product(a, transposed(a));
  for (int64_t i = 0; i < n; ++i) h(i, i) += static_cast<double>(n);
  return h;
}

TEST(Linalg, MultipliesAllFourWays) {
  const Matrix a = random_matrix(7, 5, 1), b = random_matrix(5, 9, 2);
  const Matrix expected = plain_product(a, b);
  const Matrix at = transposed(a), bt = transposed(b);
  const test::Closeness close{.absolute = 1e-13};
  EXPECT_TRUE(all_close(multiply(a, b).values, expected.values, close));
  EXPECT_TRUE(
      all_close(multiply(at, Transpose::kYes, b, Transpose::kNo).values, expected.values, close));
  EXPECT_TRUE(
      all_close(multiply(a, Transpose::kNo, bt, Transpose::kYes).values, expected.values, close));
  EXPECT_TRUE(
      all_close(multiply(at, Transpose::kYes, bt, Transpose::kYes).values, expected.values, close));
}

TEST(Linalg, InverseCholeskyUpperIsTheUpperFactorOfTheInverse) {
  for (const int64_t n : {1, 2, 17, 64, 65, 150}) {
    const Matrix h = positive_definite(n, static_cast<uint64_t>(n));
    Matrix u = h;
    ASSERT_TRUE(inverse_cholesky_upper_in_place(u));
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < i; ++j) ASSERT_EQ(u(i, j), 0.0);
    const Matrix product = plain_product(plain_product(transposed(u), u), h);
    EXPECT_TRUE(all_close(product.values, identity(n).values, {.absolute = 1e-12, .columns = n}))
        << n;
  }
}

TEST(Linalg, CholeskyRefusesAnIndefiniteMatrix) {
  Matrix a = identity(5);
  a(3, 3) = -1;
  EXPECT_FALSE(cholesky_in_place(a));
  Matrix singular(3, 3);
  EXPECT_FALSE(inverse_cholesky_upper_in_place(singular));
}

TEST(Linalg, EigenvaluesDescendAndRebuildTheMatrix) {
  const Matrix a = positive_definite(20, 3);
  const SymmetricEigen eigen = symmetric_eigen(a);
  Matrix scaled = eigen.vectors;
  for (int64_t i = 0; i < 20; ++i)
    for (int64_t j = 0; j < 20; ++j) scaled(i, j) *= eigen.values[static_cast<size_t>(j)];
  EXPECT_TRUE(all_close(plain_product(scaled, transposed(eigen.vectors)).values, a.values,
                        {.absolute = 1e-11}));
  EXPECT_TRUE(std::is_sorted(eigen.values.rbegin(), eigen.values.rend()));
}

TEST(Linalg, RandomOrthogonalIsOrthogonalAndRepeatable) {
  for (const int64_t n : {1, 3, 7, 9, 40}) {
    Rng rng(5), again(5);
    const Matrix q = random_orthogonal(n, rng);
    EXPECT_TRUE(
        all_close(plain_product(transposed(q), q).values, identity(n).values, {.absolute = 1e-13}));
    EXPECT_EQ(q.values, random_orthogonal(n, again).values);
  }
}

TEST(Linalg, TopEigenFindsTheLeadingPairs) {
  const Matrix factor = random_matrix(60, 8, 11);  // rank 8
  const Matrix s = plain_product(factor, transposed(factor));
  const SymmetricEigen exact = symmetric_eigen(s);
  const auto apply = [&](const Matrix& x) { return multiply(s, x); };
  const TopEigen top = top_eigen(apply, 60, 5, Rng(1));
  for (size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(top.values[i], exact.values[i], 1e-9 * exact.values[0]);
  const Matrix gram = plain_product(transposed(top.vectors), top.vectors);
  EXPECT_TRUE(all_close(gram.values, identity(5).values, {.absolute = 1e-12}));
  // More pairs than the operator has: the rest is zero.
  EXPECT_NEAR(top_eigen(apply, 60, 20, Rng(1)).values[12], 0.0, 1e-9 * exact.values[0]);
  EXPECT_EQ(top_eigen(apply, 60, 0, Rng(1)).values.size(), 0u);
}

}  // namespace
}  // namespace spear
