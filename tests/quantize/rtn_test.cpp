#include "spear/quantize/rtn.h"

#include <cmath>

#include <gtest/gtest.h>

#include "covariance_metric.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

TEST(Rtn, EveryWeightIsWithinAStepOfItsGrid) {
  Rng rng(1);
  ThreadPool pool(2);
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const int32_t group : {0, 32, 64, 128, 256})
      for (const bool symmetric : {false, true}) {
        const int64_t n = 5, k = 256;
        const std::vector<float> w = test::normal_values(n * k, rng, 0.05f);
        const UnpackedMatrix q = rtn(
            w.data(), n, k, {.bits = bits, .group = group, .symmetric = symmetric}, nullptr, pool);
        EXPECT_EQ(q.group, group == 0 ? k : group);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < k; ++j) {
            const float scale = q.scales[static_cast<size_t>(i * (k / q.group) + j / q.group)];
            // Half a step by rounding the weight, at the ends another half by rounding the zero,
            // and the scale's own rounding, 2^-11 of at most 2^bits steps.
            const float slack = scale * (1.0f + std::ldexp(1.0f, bits - 11));
            ASSERT_LE(std::fabs(test::dequantized(q, i, j) - w[static_cast<size_t>(i * k + j)]),
                      slack)
                << bits << " bits, group " << group << ", [" << i << ", " << j << "]";
          }
      }
}

TEST(Rtn, EveryCombinationPacksAndUnpacks) {
  Rng rng(2);
  ThreadPool pool(2);
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const int32_t group : {0, 32, 64, 128, 256})
      for (const bool symmetric : {false, true})
        for (const ZeroKind kind : {ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16}) {
          const int64_t n = 3, k = 256;
          const std::vector<float> w = test::normal_values(n * k, rng);
          const GridOptions options{
              .bits = bits, .group = group, .symmetric = symmetric, .zero_kind = kind};
          const UnpackedMatrix q = rtn(w.data(), n, k, options, nullptr, pool);
          const QuantizedMatrix packed = pack(q, stored_zero_kind(options));
          const UnpackedMatrix back = unpack(packed.view());
          ASSERT_EQ(back.codes, q.codes) << bits << ' ' << group << ' ' << symmetric;
          ASSERT_EQ(back.scales, q.scales);
          ASSERT_EQ(back.zeros, q.zeros);
        }
}

TEST(Rtn, SearchWithImportanceLowersTheWeightedError) {
  Rng rng(3);
  ThreadPool pool(2);
  const int64_t n = 8, k = 128;
  const std::vector<float> w = test::outlier_values(n, k, rng);
  const std::vector<float> importance = test::uniform_values(k, rng, 0, 1);
  std::vector<float> diagonal(static_cast<size_t>(k * k));
  for (int64_t j = 0; j < k; ++j)
    diagonal[static_cast<size_t>(j * k + j)] = importance[static_cast<size_t>(j)];
  const GridOptions plain{.bits = 4}, searched{.bits = 4, .search = true};
  EXPECT_LT(
      test::covariance_error(w, rtn(w.data(), n, k, searched, importance.data(), pool), diagonal),
      test::covariance_error(w, rtn(w.data(), n, k, plain, nullptr, pool), diagonal));
}

TEST(Rtn, IsTheSameOnAnyNumberOfThreads) {
  Rng rng(4);
  ThreadPool one(1), three(3);
  const std::vector<float> w = test::normal_values(40 * 96, rng);
  const GridOptions options{.bits = 4, .group = 32, .search = true};
  EXPECT_EQ(rtn(w.data(), 40, 96, options, nullptr, one).codes,
            rtn(w.data(), 40, 96, options, nullptr, three).codes);
}

}  // namespace
}  // namespace spear
