#include <cmath>

#include "spear/base/rng.h"

#include "kernels/each_isa.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

constexpr double kU = test::kRoundoffF32;

TEST(RmsNorm, AgreesWithThePlainTwin) {
  Rng rng(1);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (int64_t m = 1; m <= 17; m += 4) {
      for (const int64_t n : {1, 3, 15, 16, 17, 31, 33, 64, 100, 576}) {
        const auto x = test::outlier_values(m, n, rng);
        const auto weight = test::normal_values(n, rng);
        for (const float* w : {static_cast<const float*>(nullptr), weight.data()}) {
          test::GuardedBuffer<float> y(m * n), inverse(m);
          std::vector<float> want(static_cast<size_t>(m * n)), want_inverse(static_cast<size_t>(m));
          cpu::rms_norm({m, n, x.data(), w, 1e-5f, y.data(), inverse.data()}, pool, loops);
          ref::rms_norm({m, n, x.data(), w, 1e-5f, want.data(), want_inverse.data()});
          // Half of the sum's relative error, and the roundings of the root and two products.
          const double relative = test::gamma(n + 1, kU) / 2 + 4 * kU;
          EXPECT_TRUE(test::all_close(y.span(), want, {.relative = relative, .columns = n}));
          EXPECT_TRUE(test::all_close(inverse.span(), want_inverse, {.relative = relative}));
          EXPECT_TRUE(y.intact() && inverse.intact());
        }
      }
    }
  });
}

TEST(RmsNorm, MayWriteOverItsInput) {
  Rng rng(2);
  const auto x = test::normal_values(5 * 40, rng);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    auto in_place = x;
    std::vector<float> apart(x.size());
    cpu::rms_norm({.m = 5, .n = 40, .x = x.data(), .y = apart.data()}, pool, loops);
    cpu::rms_norm({.m = 5, .n = 40, .x = in_place.data(), .y = in_place.data()}, pool, loops);
    EXPECT_EQ(in_place, apart);
  });
}

TEST(Rope, AgreesWithThePlainTwinFarIntoTheContext) {
  Rng rng(3);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const int64_t d : {2, 6, 16, 30, 64, 80, 128}) {
      const int64_t m = 9;
      const int64_t heads = 3;
      const int64_t stride = heads * d + 4;
      const std::vector<int32_t> positions = {0, 1, 2, 17, 255, 2047, 8191, 131071, 1000003};
      std::vector<float> frequencies;
      for (int64_t j = 0; j < d / 2; ++j)
        frequencies.push_back(
            std::pow(10000.0f, -2.0f * static_cast<float>(j) / static_cast<float>(d)));
      for (const bool inverse : {false, true}) {
        const auto x = test::normal_values(m * stride, rng);
        auto actual = x;
        auto want = x;
        RopeArgs args{m,      heads, d, actual.data(), stride, positions.data(), frequencies.data(),
                      inverse};
        cpu::rope(args, pool, loops);
        args.x = want.data();
        ref::rope(args);
        // The tables are within 4 roundoffs; each output is two products and a sum.
        std::vector<double> bounds(x.size(), 0.0);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t h = 0; h < heads; ++h)
            for (int64_t j = 0; j < d; ++j) {
              const int64_t head = i * stride + h * d;
              const double pair =
                  std::abs(x[head + j % (d / 2)]) + std::abs(x[head + j % (d / 2) + d / 2]);
              bounds[head + j] = 7 * kU * pair;
            }
        EXPECT_TRUE(test::all_within(actual, want, bounds, {stride}));
      }
    }
  });
}

TEST(SiluMul, AgreesWithThePlainTwin) {
  Rng rng(4);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const int64_t count : {1, 5, 15, 16, 17, 63, 1000, 70001}) {
      auto gate = test::normal_values(count, rng, 8);
      gate[0] = -200;  // far below where the exponential is cut
      const auto up = test::normal_values(count, rng);
      test::GuardedBuffer<float> y(count);
      std::vector<float> want(static_cast<size_t>(count));
      cpu::silu_mul({count, gate.data(), up.data(), y.data()}, pool, loops);
      ref::silu_mul({count, gate.data(), up.data(), want.data()});
      // The exponential, then a sum, a quotient and two products; below −88 both are nearly
      // nothing.
      EXPECT_TRUE(test::all_close(y.span(), want,
                                  {.absolute = 1e-35, .relative = (test::kExpError + 4) * kU}));
      EXPECT_TRUE(y.intact());
    }
  });
}

struct Rotation {
  RotationView view;
  std::vector<float> signs_in, signs_out, factor;
};

// Householder's reflection is orthogonal and full.
Rotation make_rotation(int64_t p, int64_t h, Rng& rng) {
  Rotation r;
  for (int64_t i = 0; i < p * h; ++i) {
    r.signs_in.push_back(rng.below(2) != 0 ? 1.0f : -1.0f);
    r.signs_out.push_back(rng.below(2) != 0 ? 1.0f : -1.0f);
  }
  const auto v = test::normal_values(p, rng);
  double norm = 0;
  for (const float value : v) norm += static_cast<double>(value) * value;
  for (int64_t i = 0; i < p; ++i)
    for (int64_t j = 0; j < p; ++j)
      r.factor.push_back(static_cast<float>((i == j ? 1 : 0) - 2.0 * v[i] * v[j] / norm));
  r.view = {p * h, p, h, r.signs_in.data(), r.factor.data(), r.signs_out.data()};
  return r;
}

TEST(Rotate, AgreesWithThePlainTwinBothWays) {
  Rng rng(5);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const auto& [p, h] : {std::pair<int64_t, int64_t>{1, 1},
                               {1, 2},
                               {1, 64},
                               {3, 1},
                               {3, 8},
                               {9, 64},
                               {5, 32},
                               {7, 256}}) {
      const Rotation r = make_rotation(p, h, rng);
      const int64_t m = 6;
      const int64_t n = p * h;
      const auto x = test::normal_values(m * n, rng);
      for (const bool inverse : {false, true}) {
        auto actual = x;
        auto want = x;
        cpu::rotate({m, r.view, inverse, actual.data()}, pool, loops);
        ref::rotate({m, r.view, inverse, want.data()});
        // p products, log2 h additions, and the scaling, of terms that sum to |x| |F| / sqrt(h).
        std::vector<double> bounds(x.size());
        for (int64_t i = 0; i < m; ++i)
          for (int64_t to = 0; to < p; ++to) {
            double magnitude = 0;
            for (int64_t from = 0; from < p; ++from)
              for (int64_t j = 0; j < h; ++j)
                magnitude += std::abs(static_cast<double>(x[i * n + from * h + j]) *
                                      r.factor[inverse ? to * p + from : from * p + to]);
            if (p == 1) magnitude /= std::abs(static_cast<double>(r.factor[0]));
            const double terms = static_cast<double>(p) + std::log2(static_cast<double>(h)) + 4;
            for (int64_t j = 0; j < h; ++j)
              bounds[i * n + to * h + j] =
                  terms * kU * magnitude / std::sqrt(static_cast<double>(h));
          }
        EXPECT_TRUE(test::all_within(actual, want, bounds, {n})) << "p " << p << " h " << h;
      }
    }
  });
}

TEST(Rotate, BackwardsUndoesForwards) {
  Rng rng(6);
  const Rotation r = make_rotation(9, 64, rng);
  const auto x = test::normal_values(4 * 576, rng);
  auto turned = x;
  ref::rotate({4, r.view, false, turned.data()});
  ref::rotate({4, r.view, true, turned.data()});
  EXPECT_TRUE(test::all_close(turned, x, {.absolute = 1e-5}));
}

}  // namespace
}  // namespace spear
