#include "spear/compensate/closed_form.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/quantize/linalg.h"
#include "spear/quantize/rtn.h"

#include "quantize/covariance_metric.h"
#include "support/closeness.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

Matrix product_of(const CompensatorValues& f) {  // B·A
  Matrix c(f.n, f.k);
  for (int64_t r = 0; r < f.rank; ++r)
    for (int64_t i = 0; i < f.n; ++i)
      for (int64_t j = 0; j < f.k; ++j)
        c(i, j) += static_cast<double>(f.b[static_cast<size_t>(r * f.n + i)]) *
                   f.a[static_cast<size_t>(r * f.k + j)];
  return c;
}

// tr((E − C)·R·(E − C)ᵀ)
double error_left(const std::vector<float>& e, const Matrix& c,
                  const std::vector<float>& covariance) {
  Matrix d = widen(e, c.rows, c.columns);
  for (size_t i = 0; i < d.values.size(); ++i) d.values[i] -= c.values[i];
  const Matrix dr = multiply(d, widen(covariance, c.columns, c.columns));
  return std::inner_product(d.values.begin(), d.values.end(), dr.values.begin(), 0.0);
}

struct Case {
  int64_t n, k;
  std::vector<float> e, covariance;
};

Case random_case(int64_t n, int64_t k, int64_t samples, uint64_t seed) {
  Rng rng(seed);
  Case c{n, k, test::normal_values(n * k, rng), test::random_covariance(k, samples, rng)};
  return c;
}

TEST(ClosedForm, IsTheTruncatedSvdOfTheWhitenedError) {
  for (const auto& [n, k] :
       std::vector<std::pair<int64_t, int64_t>>{{30, 20}, {20, 30}, {24, 24}}) {
    const Case c = random_case(n, k, 200, static_cast<uint64_t>(n));
    constexpr int32_t kRank = 4;
    // By the book: M = E·L with R = L·Lᵀ, its leading right singular vectors V, then C =
    // M·V·Vᵀ·L⁻¹.
    Matrix l = widen(c.covariance, k, k);
    ASSERT_TRUE(cholesky_in_place(l));
    const Matrix m = multiply(widen(c.e, n, k), l);
    const SymmetricEigen right = symmetric_eigen(multiply(m, Transpose::kYes, m, Transpose::kNo));
    Matrix v(k, kRank);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t r = 0; r < kRank; ++r) v(i, r) = right.vectors(i, r);
    Matrix inverse = l;
    invert_lower_in_place(inverse);
    const Matrix expected =
        multiply(multiply(multiply(m, v), Transpose::kNo, v, Transpose::kYes), inverse);
    const ClosedForm solution =
        closed_form(c.e.data(), n, k, c.covariance.data(), {.rank = kRank, .spectrum = 40});
    double largest = 0;
    for (const double value : expected.values) largest = std::max(largest, std::fabs(value));
    // The factors are F32; eigenvectors of neighbouring values mix, but their span does not.
    EXPECT_TRUE(test::all_close(product_of(solution.factors).values, expected.values,
                                {.absolute = 1e-5 * largest}));
    for (int i = 0; i < kRank; ++i)
      EXPECT_NEAR(solution.gains[static_cast<size_t>(i)], right.values[static_cast<size_t>(i)],
                  1e-8 * right.values[0]);
  }
}

TEST(ClosedForm, GainsAreWhatEachRankTakesFromTheError) {
  const Case c = random_case(18, 26, 300, 3);
  const ClosedForm whole =
      closed_form(c.e.data(), 18, 26, c.covariance.data(), {.rank = 18, .spectrum = 18});
  const double error = error_left(c.e, Matrix(18, 26), c.covariance);
  EXPECT_NEAR(whole.error, error, 1e-6 * error);
  EXPECT_NEAR(std::accumulate(whole.gains.begin(), whole.gains.end(), 0.0), whole.error,
              1e-9 * whole.error);
  EXPECT_TRUE(std::is_sorted(whole.gains.rbegin(), whole.gains.rend()));
  double left = error;
  for (int32_t rank = 1; rank <= 18; ++rank) {
    left -= whole.gains[static_cast<size_t>(rank - 1)];
    EXPECT_NEAR(error_left(c.e, product_of(truncated(whole.factors, rank)), c.covariance), left,
                1e-6 * error);
  }
}

TEST(ClosedForm, NoOtherFactorsOfThatRankDoBetter) {
  const Case c = random_case(16, 16, 100, 5);
  const ClosedForm best = closed_form(c.e.data(), 16, 16, c.covariance.data(), {.rank = 3});
  const double left = error_left(c.e, product_of(best.factors), c.covariance);
  Rng rng(1);
  for (int i = 0; i < 30; ++i) {
    CompensatorValues other = best.factors;
    for (float& value : other.a) value += 0.01f * static_cast<float>(rng.normal());
    for (float& value : other.b) value += 0.01f * static_cast<float>(rng.normal());
    EXPECT_GE(error_left(c.e, product_of(other), c.covariance), left);
  }
  for (const FactorMetric metric : {FactorMetric::kPlain, FactorMetric::kDiagonal}) {
    const ClosedForm weaker =
        closed_form(c.e.data(), 16, 16, c.covariance.data(), {.metric = metric, .rank = 3});
    EXPECT_GT(error_left(c.e, product_of(weaker.factors), c.covariance), left);
  }
}

TEST(ClosedForm, FactorsAreWhitened) {
  const Case c = random_case(20, 28, 400, 7);
  const ClosedForm solution = closed_form(c.e.data(), 20, 28, c.covariance.data(), {.rank = 5});
  Matrix a(5, 28);
  std::copy(solution.factors.a.begin(), solution.factors.a.end(), a.values.begin());
  const Matrix z =
      multiply(multiply(a, widen(c.covariance, 28, 28)), Transpose::kNo, a, Transpose::kYes);
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 5; ++j) EXPECT_NEAR(z(i, j), i == j ? 1.0 : 0.0, 1e-5);
}

TEST(ClosedForm, PlainAndDiagonalAreTheirOwnOptimum) {
  const Case c = random_case(14, 22, 100, 9);
  std::vector<float> identity(22 * 22), diagonal(22 * 22);
  for (size_t i = 0; i < 22; ++i) {
    identity[i * 23] = 1;
    diagonal[i * 23] = c.covariance[i * 23];
  }
  const auto same = [&](FactorMetric metric, const std::vector<float>& as_covariance) {
    const ClosedForm a =
        closed_form(c.e.data(), 14, 22, c.covariance.data(), {.metric = metric, .rank = 4});
    const ClosedForm b = closed_form(c.e.data(), 14, 22, as_covariance.data(), {.rank = 4});
    EXPECT_TRUE(test::all_close(product_of(a.factors).values, product_of(b.factors).values,
                                {.absolute = 1e-5}));
    EXPECT_NEAR(a.error, b.error, 1e-9 * b.error);
  };
  same(FactorMetric::kPlain, identity);
  same(FactorMetric::kDiagonal, diagonal);
}

TEST(ClosedForm, ASingularCovarianceNeedsNoDamping) {
  const Case c =
      random_case(20, 30, 3, 11);  // rank 3: three gains, the other ranks have nothing to do
  const ClosedForm solution = closed_form(c.e.data(), 20, 30, c.covariance.data(), {.rank = 6});
  EXPECT_LT(error_left(c.e, product_of(solution.factors), c.covariance), 1e-6 * solution.error);
  for (const float value : solution.factors.a) ASSERT_TRUE(std::isfinite(value));
  const std::vector<float> nothing(30 * 30);
  const ClosedForm dead = closed_form(c.e.data(), 20, 30, nothing.data(), {.rank = 2});
  EXPECT_EQ(dead.error, 0.0);
  EXPECT_EQ(dead.factors.b, std::vector<float>(40, 0.0f));
}

TEST(ClosedForm, ResidualsAreWhatTheCodesLeave) {
  ThreadPool pool(1);
  Rng rng(13);
  const std::vector<float> w = test::normal_values(6 * 64, rng);
  const UnpackedMatrix q = rtn(w.data(), 6, 64, {.bits = 3, .group = 32}, nullptr, pool);
  std::vector<float> residual = residual_of(w.data(), q);
  for (int64_t i = 0; i < 6; ++i)
    for (int64_t j = 0; j < 64; ++j) {
      const auto at = static_cast<size_t>(i * 64 + j);
      ASSERT_EQ(residual[at], w[at] - test::dequantized(q, i, j));
    }
  const ClosedForm full =
      closed_form(residual.data(), 6, 64, nullptr, {.metric = FactorMetric::kPlain, .rank = 6});
  subtract_product(full.factors, residual.data());
  for (const float value : residual) EXPECT_NEAR(value, 0.0f, 1e-5f);
}

}  // namespace
}  // namespace spear
