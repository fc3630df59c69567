#include "spear/quantize/gptq.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/error.h"
#include "spear/quantize/rtn.h"

#include "covariance_metric.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

using Plain = std::vector<std::vector<double>>;

Plain inverse(Plain a) {  // Gauss-Jordan with pivoting
  const size_t n = a.size();
  Plain b(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) b[i][i] = 1;
  for (size_t c = 0; c < n; ++c) {
    size_t pivot = c;
    for (size_t r = c; r < n; ++r)
      if (std::fabs(a[r][c]) > std::fabs(a[pivot][c])) pivot = r;
    std::swap(a[c], a[pivot]);
    std::swap(b[c], b[pivot]);
    const double p = a[c][c];
    for (size_t j = 0; j < n; ++j) a[c][j] /= p, b[c][j] /= p;
    for (size_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const double f = a[r][c];
      for (size_t j = 0; j < n; ++j) a[r][j] -= f * a[c][j], b[r][j] -= f * b[c][j];
    }
  }
  return b;
}

// Optimal brain quantization in the given order, straight from its definition: before each column
// the inverse of the remaining Hessian is computed anew.
std::vector<uint8_t> plain_gptq(const std::vector<float>& w, int64_t n,
                                const std::vector<float>& covariance, int64_t k, double damping,
                                const std::vector<int32_t>& order, const UnpackedMatrix& grids,
                                int32_t bits) {
  double mean = 0;
  for (int64_t i = 0; i < k; ++i)
    mean += covariance[static_cast<size_t>(i * k + i)] / static_cast<double>(k);
  std::vector<uint8_t> codes(static_cast<size_t>(n * k));
  std::vector<double> work(w.begin(), w.end());
  std::vector<int32_t> left = order;
  while (!left.empty()) {
    Plain h(left.size(), std::vector<double>(left.size()));
    for (size_t a = 0; a < left.size(); ++a)
      for (size_t b = 0; b < left.size(); ++b)
        h[a][b] = covariance[static_cast<size_t>(left[a] * k + left[b])] +
                  (a == b ? damping * mean : 0.0);
    const Plain inv = inverse(h);
    const int32_t column = left.front();
    for (int64_t row = 0; row < n; ++row) {
      const auto group = static_cast<size_t>(row * (k / grids.group) + column / grids.group);
      const double s = grids.scales[group], z = grids.zeros[group];
      const double value = work[static_cast<size_t>(row * k + column)];
      const double code = std::clamp(std::nearbyint(value / s + z), 0.0, std::pow(2.0, bits) - 1);
      codes[static_cast<size_t>(row * k + column)] = static_cast<uint8_t>(code);
      const double error = (value - (code - z) * s) / inv[0][0];
      for (size_t a = 0; a < left.size(); ++a)
        work[static_cast<size_t>(row * k + left[a])] -= error * inv[0][a];
    }
    left.erase(left.begin());
  }
  return codes;
}

TEST(Gptq, EqualsOptimalBrainQuantizationByDefinition) {
  ThreadPool pool(2);
  for (const uint64_t seed : {1, 2, 3})
    for (const int32_t group : {0, 8})
      for (const int32_t bits : {3, 4}) {
        Rng rng(seed);
        const int64_t n = 6, k = 32;
        const std::vector<float> w = test::normal_values(n * k, rng);
        const std::vector<float> covariance = test::random_covariance(k, 4 * k, rng);
        const GptqFactor factor = make_gptq_factor(covariance.data(), k, 0.01, true, "test");
        const GridOptions options{.bits = bits, .group = group};
        const UnpackedMatrix q = gptq(w.data(), n, factor, options, pool);
        const UnpackedMatrix grids = fit_grids(w.data(), n, k, options, nullptr, pool);
        EXPECT_EQ(q.scales, grids.scales);
        EXPECT_EQ(q.codes, plain_gptq(w, n, covariance, k, 0.01, factor.order, grids, bits))
            << seed << ' ' << group << ' ' << bits;
      }
}

TEST(Gptq,
     BlocksDoNotChangeTheResult) {  // k over several blocks, against an unblocked sweep in double
  ThreadPool pool(2);
  Rng rng(5);
  const int64_t n = 4, k = 300;
  const std::vector<float> w = test::normal_values(n * k, rng);
  const std::vector<float> covariance = test::random_covariance(k, 2 * k, rng);
  const GptqFactor factor = make_gptq_factor(covariance.data(), k, 0.01, true, "test");
  const UnpackedMatrix q = gptq(w.data(), n, factor, {.bits = 4}, pool);
  int64_t different = 0;
  for (int64_t row = 0; row < n; ++row) {
    std::vector<double> work;
    for (const int32_t column : factor.order)
      work.push_back(w[static_cast<size_t>(row * k + column)]);
    const double s = q.scales[static_cast<size_t>(row)], z = q.zeros[static_cast<size_t>(row)];
    for (int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<size_t>(i);
      const double code = std::clamp(std::nearbyint(work[at] / s + z), 0.0, 15.0);
      if (code != q.codes[static_cast<size_t>(row * k + factor.order[at])]) ++different;
      const float* u = factor.upper.data() + i * k;
      const double error = (work[at] - (code - z) * s) / u[i];
      for (int64_t j = i; j < k; ++j) work[static_cast<size_t>(j)] -= error * u[j];
    }
  }
  // F32 against F64: a weight within rounding of a tie may fall to the other side, and then others
  // follow in its row.
  EXPECT_LE(different, n * k / 100);
}

TEST(Gptq, IsNeverWorseThanRoundingToNearest) {
  ThreadPool pool(2);
  for (const uint64_t seed : {1, 2, 3, 4, 5})
    for (const int32_t bits : {2, 3, 4, 8})
      for (const int32_t group : {0, 32})
        for (const bool ordered : {false, true})
          for (const bool symmetric : {false, true}) {
            Rng rng(seed);
            const int64_t n = 16, k = 64;
            const std::vector<float> w = test::normal_values(n * k, rng);
            const std::vector<float> covariance = test::random_covariance(k, 256, rng);
            const GridOptions options{.bits = bits, .group = group, .symmetric = symmetric};
            const GptqFactor factor = make_gptq_factor(covariance.data(), k, 0.01, ordered, "test");
            EXPECT_LT(
                test::covariance_error(w, gptq(w.data(), n, factor, options, pool), covariance),
                test::covariance_error(w, rtn(w.data(), n, k, options, nullptr, pool), covariance))
                << seed << ' ' << bits << ' ' << group << ' ' << ordered << ' ' << symmetric;
          }
}

TEST(Gptq, RoundsDeadInputsPlainly) {
  ThreadPool pool(1);
  Rng rng(6);
  const int64_t n = 4, k = 24;
  const std::vector<float> w = test::normal_values(n * k, rng);
  std::vector<float> covariance = test::random_covariance(k, 100, rng);
  for (const int64_t dead : {0, 7, 23})
    for (int64_t j = 0; j < k; ++j)
      covariance[static_cast<size_t>(dead * k + j)] =
          covariance[static_cast<size_t>(j * k + dead)] = 0;
  const UnpackedMatrix q = gptq(
      w.data(), n, make_gptq_factor(covariance.data(), k, 0.01, true, "test"), {.bits = 4}, pool);
  const UnpackedMatrix plain = rtn(w.data(), n, k, {.bits = 4}, nullptr, pool);
  for (int64_t row = 0; row < n; ++row)
    for (const int64_t dead : {0, 7, 23})
      EXPECT_EQ(q.codes[static_cast<size_t>(row * k + dead)],
                plain.codes[static_cast<size_t>(row * k + dead)]);
}

TEST(Gptq, AllInputsDeadIsRoundingToNearest) {
  ThreadPool pool(1);
  Rng rng(7);
  const std::vector<float> w = test::normal_values(4 * 16, rng);
  const std::vector<float> nothing(16 * 16, 0.0f);
  const GptqFactor factor = make_gptq_factor(nothing.data(), 16, 0.01, true, "test");
  EXPECT_EQ(gptq(w.data(), 4, factor, {.bits = 4}, pool).codes,
            rtn(w.data(), 4, 16, {.bits = 4}, nullptr, pool).codes);
}

TEST(Gptq, ASingularCovarianceIsDamped) {
  ThreadPool pool(1);
  Rng rng(8);
  const int64_t n = 4, k = 48;
  const std::vector<float> w = test::normal_values(n * k, rng);
  const std::vector<float> covariance = test::random_covariance(k, 5, rng);  // rank 5
  const GptqFactor factor = make_gptq_factor(covariance.data(), k, 0.01, true, "test");
  EXPECT_EQ(factor.damping, 0.01);
  EXPECT_LT(test::covariance_error(w, gptq(w.data(), n, factor, {.bits = 4}, pool), covariance),
            test::covariance_error(w, rtn(w.data(), n, k, {.bits = 4}, nullptr, pool), covariance));
  // Without damping it cannot be factored: the damping rises until it can.
  EXPECT_GT(make_gptq_factor(covariance.data(), k, 0.0, true, "test").damping, 0.0);
}

TEST(Gptq, ADamagedCovarianceIsRefusedByName) {
  const int64_t k = 8;
  std::vector<float> covariance(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) covariance[static_cast<size_t>(i * k + i)] = 1;
  covariance[1] = covariance[8] = 100;  // far from positive definite
  try {
    (void)make_gptq_factor(covariance.data(), k, 0.01, true, "layers.3.self_attn.q_proj");
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_NE(failure.error().message.find("layers.3.self_attn.q_proj"), std::string::npos);
  }
  covariance[1] = covariance[8] = std::nanf("");
  EXPECT_THROW((void)make_gptq_factor(covariance.data(), k, 0.01, true, "x"), Failure);
}

// Cutting the range pays even more than in plain rounding, and every row has the cheapest of
// several.
TEST(Gptq, SearchedRangesCostLess) {
  ThreadPool pool(2);
  for (const int32_t group : {0, 32}) {
    Rng rng(21);
    const int64_t n = 24, k = 128;
    const std::vector<float> w = test::normal_values(n * k, rng);
    const std::vector<float> covariance = test::random_covariance(k, 400, rng);
    const GptqFactor factor = make_gptq_factor(covariance.data(), k, 0.01, true, "test");
    GridOptions options{.bits = 3, .group = group};
    const double plain =
        test::covariance_error(w, gptq(w.data(), n, factor, options, pool), covariance);
    options.search = true;
    const UnpackedMatrix searched = gptq(w.data(), n, factor, options, pool);
    EXPECT_LT(test::covariance_error(w, searched, covariance), 0.95 * plain);
    // Some rows left the grid that plain rounding would take, and all scales can be stored.
    EXPECT_NE(searched.scales,
              fit_grids(w.data(), n, k, options, factor.importance.data(), pool).scales);
    EXPECT_EQ(unpack(pack(searched, ZeroKind::kU4).view()).scales, searched.scales);
  }
}

TEST(Gptq, MovingGroupsReachAcrossBlocksOf128) {
  ThreadPool pool(2);
  Rng rng(9);
  const int64_t n = 8, k = 512;
  const std::vector<float> w = test::normal_values(n * k, rng);
  const std::vector<float> covariance = test::random_covariance(k, 600, rng);
  const GptqFactor factor = make_gptq_factor(covariance.data(), k, 0.01, false, "test");
  for (const int32_t group : {64, 128, 256}) {
    const GridOptions options{.bits = 4, .group = group};
    const UnpackedMatrix q = gptq(w.data(), n, factor, options, pool);
    const UnpackedMatrix plain = rtn(w.data(), n, k, options, nullptr, pool);
    EXPECT_LT(test::covariance_error(w, q, covariance),
              test::covariance_error(w, plain, covariance));
    EXPECT_EQ(q.scales[0], plain.scales[0]);  // the first group's grid cannot have moved
    EXPECT_NE(q.scales, plain.scales);        // later ones have
  }
}

}  // namespace
}  // namespace spear
