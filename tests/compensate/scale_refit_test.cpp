#include "spear/compensate/scale_refit.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/dtype.h"
#include "spear/quantize/rtn.h"

#include "quantize/covariance_metric.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

struct Case {
  std::vector<float> w, covariance;
  UnpackedMatrix q;
  ZeroKind kind;
};

Case random_case(int64_t n, int64_t k, const GridOptions& options, uint64_t seed) {
  Rng rng(seed);
  ThreadPool pool(2);
  Case c;
  c.w = test::normal_values(n * k, rng);
  c.covariance = test::random_covariance(k, 3 * k, rng);
  c.q = rtn(c.w.data(), n, k, options, nullptr, pool);
  c.kind = stored_zero_kind(options);
  return c;
}

TEST(ScaleRefit, LowersTheErrorItReports) {
  ThreadPool pool(2);
  for (const GridOptions& options :
       {GridOptions{.bits = 4}, GridOptions{.bits = 3, .group = 32},
        GridOptions{.bits = 2, .symmetric = true},
        GridOptions{.bits = 4, .zero_kind = ZeroKind::kU8},
        GridOptions{.bits = 3, .zero_kind = ZeroKind::kF16},
        GridOptions{.bits = 4, .group = 16, .zero_kind = ZeroKind::kU8}, GridOptions{.bits = 8}}) {
    Case c = random_case(12, 64, options, 3);
    const double before = test::covariance_error(c.w, c.q, c.covariance);
    const std::vector<uint8_t> codes = c.q.codes;
    const ScaleRefit refit = refit_scales(c.w.data(), c.covariance.data(), c.kind, pool, c.q);
    const double after = test::covariance_error(c.w, c.q, c.covariance);
    // The reported errors are differences of F32 products the size of the weights' own energy.
    const std::vector<float> none(c.w.size());
    UnpackedMatrix empty = c.q;
    std::fill(empty.scales.begin(), empty.scales.end(), 0.0f);
    const double slack = 1e-5 * test::covariance_error(c.w, empty, c.covariance);
    EXPECT_NEAR(refit.error_before, before, slack);
    EXPECT_NEAR(refit.error_after, after, slack);
    EXPECT_LT(after, before);
    EXPECT_EQ(c.q.codes, codes);
  }
}

TEST(ScaleRefit, LeavesValuesThatPackExactly) {
  ThreadPool pool(2);
  for (const ZeroKind kind : {ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16}) {
    Case c = random_case(16, 48, {.bits = 4, .zero_kind = kind}, 5);
    (void)refit_scales(c.w.data(), c.covariance.data(), c.kind, pool, c.q);
    const UnpackedMatrix back = unpack(pack(c.q, kind).view());
    EXPECT_EQ(back.scales, c.q.scales);
    EXPECT_EQ(back.zeros, c.q.zeros);
  }
}

// No step of the stored precision in any scale or zero lowers the error of its row.
TEST(ScaleRefit, FindsTheLeastSquares) {
  ThreadPool pool(2);
  for (const int32_t group : {0, 16})
    for (const ZeroKind kind : {ZeroKind::kU4, ZeroKind::kF16}) {
      Case c = random_case(6, 48, {.bits = 4, .group = group, .zero_kind = kind}, 7);
      (void)refit_scales(c.w.data(), c.covariance.data(), c.kind, pool, c.q);
      const double best = test::covariance_error(c.w, c.q, c.covariance);
      for (size_t i = 0; i < c.q.scales.size(); ++i)
        for (const float factor : {0.998f, 1.002f}) {
          UnpackedMatrix other = c.q;
          other.scales[i] *= factor;
          EXPECT_GE(test::covariance_error(c.w, other, c.covariance), best);
          if (kind != ZeroKind::kF16 || group != 0) continue;
          other = c.q;
          other.zeros[i] += factor > 1 ? 0.02f : -0.02f;
          if (other.zeros[i] >= 0 && other.zeros[i] <= 15) {
            EXPECT_GE(test::covariance_error(c.w, other, c.covariance), best);
          }
        }
    }
}

TEST(ScaleRefit, RecoversTheScalesCodesWereMadeWith) {
  ThreadPool pool(1);
  Case c = random_case(4, 64, {.bits = 4, .group = 32}, 9);
  std::vector<float> target(c.w.size());
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 64; ++j)
      target[static_cast<size_t>(i * 64 + j)] = test::dequantized(c.q, i, j);
  const std::vector<float> scales = c.q.scales;
  for (float& scale : c.q.scales) scale = float_from_f16(f16_from_float(scale * 1.3f));
  (void)refit_scales(target.data(), c.covariance.data(), c.kind, pool, c.q);
  for (size_t i = 0; i < scales.size(); ++i)
    EXPECT_NEAR(c.q.scales[i], scales[i], scales[i] * 0x1p-10f);
}

TEST(ScaleRefit, SurvivesDeadRowsAndNoInputs) {
  ThreadPool pool(1);
  Case c = random_case(4, 32, {.bits = 4}, 11);
  for (int64_t j = 0; j < 32; ++j)
    c.q.codes[static_cast<size_t>(j)] = static_cast<uint8_t>(c.q.zeros[0]);
  const float dead = c.q.scales[0];
  (void)refit_scales(c.w.data(), c.covariance.data(), c.kind, pool, c.q);
  EXPECT_EQ(c.q.scales[0], dead);
  const std::vector<float> scales = c.q.scales, nothing(32 * 32);
  (void)refit_scales(c.w.data(), nothing.data(), c.kind, pool, c.q);
  EXPECT_EQ(c.q.scales, scales);
}

}  // namespace
}  // namespace spear
