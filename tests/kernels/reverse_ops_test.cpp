#include "spear/kernels/reverse_ops.h"

#include <cmath>

#include "spear/base/rng.h"
#include "spear/kernels/decoder_ops.h"

#include "kernels/each_isa.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

constexpr double kU = test::kRoundoffF32;

// The slope of `loss` at 0 by central differences, and how far it may be from the true one: the
// next Richardson term, and the rounding of outputs whose magnitudes sum to `magnitude`.
struct Slope {
  double value, error;
};
template <class Loss>
Slope slope(Loss loss, double magnitude) {
  const float h = 0x1p-6f;
  const double wide = (loss(h) - loss(-h)) / (2 * h);
  const double narrow = (loss(h / 2) - loss(-h / 2)) / h;
  return {narrow, 2 * std::abs(wide - narrow) + 2 * kU * magnitude / h + 1e-9};
}

double weighted(const std::vector<float>& y, const std::vector<float>& dy) {
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * dy[i];
  return sum;
}
double magnitude(const std::vector<float>& y, const std::vector<float>& dy) {
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += std::abs(static_cast<double>(y[i]) * dy[i]);
  return sum;
}

struct NormCase {
  int64_t m, n;
  std::vector<float> x, weight, dy, dx, dweight, inverse;

  NormCase(int64_t rows, int64_t columns, Rng& rng)
      : m(rows),
        n(columns),
        x(test::normal_values(m * n, rng)),
        weight(test::normal_values(n, rng)),
        dy(test::normal_values(m * n, rng)),
        dx(test::normal_values(m * n, rng)),
        dweight(test::normal_values(n, rng)),
        inverse(static_cast<size_t>(m)) {
    std::vector<float> y(x.size());
    ref::rms_norm({m, n, x.data(), weight.data(), 1e-5f, y.data(), inverse.data()});
  }
  std::vector<float> forward() const {
    std::vector<float> y(x.size());
    ref::rms_norm({.m = m, .n = n, .x = x.data(), .weight = weight.data(), .y = y.data()});
    return y;
  }
};

TEST(RmsNormBackward, AgreesWithThePlainTwin) {
  Rng rng(1);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const int64_t n : {1, 3, 16, 17, 33, 96}) {
      for (const int64_t m : {1, 2, 15, 40}) {
        for (const bool weighted_norm : {false, true}) {
          const NormCase c(m, n, rng);
          const float* weight = weighted_norm ? c.weight.data() : nullptr;
          auto dx = c.dx, want_dx = c.dx, dw = c.dweight, want_dw = c.dweight;
          cpu::rms_norm_backward(
              {m, n, c.x.data(), weight, c.inverse.data(), c.dy.data(), dx.data(), dw.data()}, pool,
              loops);
          ref::rms_norm_backward({m, n, c.x.data(), weight, c.inverse.data(), c.dy.data(),
                                  want_dx.data(), want_dw.data()});
          std::vector<double> dx_bound, dw_bound(static_cast<size_t>(n));
          for (int64_t i = 0; i < m; ++i) {
            const double r = c.inverse[i];
            double dot = 0;
            for (int64_t j = 0; j < n; ++j)
              dot += std::abs(static_cast<double>(c.x[i * n + j]) * c.dy[i * n + j] *
                              (weight ? weight[j] : 1));
            for (int64_t j = 0; j < n; ++j) {
              const double g = std::abs(c.dy[i * n + j] * (weight ? weight[j] : 1));
              const double pull = std::abs(c.x[i * n + j]) * r * r * dot / static_cast<double>(n);
              dx_bound.push_back(r * (5 * kU * g + (test::gamma(n + 3, kU) + 6 * kU) * pull) +
                                 2 * kU * std::abs(c.dx[i * n + j]));
              dw_bound[j] += std::abs(static_cast<double>(c.x[i * n + j]) * c.dy[i * n + j] * r) *
                             test::gamma(m + 4, kU);
            }
          }
          for (int64_t j = 0; j < n; ++j) dw_bound[j] += 2 * kU * std::abs(c.dweight[j]);
          EXPECT_TRUE(test::all_within(dx, want_dx, dx_bound, {n})) << m << " x " << n;
          EXPECT_TRUE(test::all_within(dw, want_dw, dw_bound)) << m << " x " << n;
        }
      }
    }
  });
}

TEST(RmsNormBackward, DoesNotDependOnTheNumberOfThreads) {
  Rng rng(2);
  const NormCase c(100, 48, rng);
  std::vector<float> results[2];
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    auto dx = c.dx;
    auto& dw = results[threads == 1 ? 0 : 1] = c.dweight;
    cpu::rms_norm_backward(
        {c.m, c.n, c.x.data(), nullptr, c.inverse.data(), c.dy.data(), dx.data(), dw.data()}, pool);
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST(RmsNormBackward, TheTwinIsTheSlopeOfTheNorm) {
  Rng rng(3);
  NormCase c(2, 9, rng);
  std::vector<float> dx(c.x.size(), 0.0f), dw(c.weight.size(), 0.0f);
  ref::rms_norm_backward(
      {c.m, c.n, c.x.data(), c.weight.data(), c.inverse.data(), c.dy.data(), dx.data(), dw.data()});
  const double size = magnitude(c.forward(), c.dy);
  const auto check = [&](std::vector<float>& parameter, const std::vector<float>& gradient) {
    for (size_t i = 0; i < parameter.size(); ++i) {
      const float old = parameter[i];
      const Slope s = slope(
          [&](float step) {
            parameter[i] = old + step;
            const double loss = weighted(c.forward(), c.dy);
            parameter[i] = old;
            return loss;
          },
          size);
      EXPECT_NEAR(gradient[i], s.value, s.error);
    }
  };
  check(c.x, dx);
  check(c.weight, dw);
}

TEST(SiluMulBackward, AgreesWithThePlainTwin) {
  Rng rng(4);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const int64_t count : {1, 7, 16, 17, 33, 500, 70003}) {
      const auto gate = test::normal_values(count, rng, 5);
      const auto up = test::normal_values(count, rng);
      const auto dy = test::normal_values(count, rng);
      test::GuardedBuffer<float> dgate(count), dup(count);
      std::vector<float> want_dgate(static_cast<size_t>(count)),
          want_dup(static_cast<size_t>(count));
      cpu::silu_mul_backward({count, gate.data(), up.data(), dy.data(), dgate.data(), dup.data()},
                             pool, loops);
      ref::silu_mul_backward(
          {count, gate.data(), up.data(), dy.data(), want_dgate.data(), want_dup.data()});
      // The sigmoid carries the exponential's error, a sum's and a quotient's; 1 − s carries s's
      // absolute error.
      std::vector<double> bounds;
      for (int64_t i = 0; i < count; ++i) {
        const double s = 1 / (1 + std::exp(-static_cast<double>(gate[i])));
        const double inner = 1 + std::abs(gate[i]) * (1 - s);
        bounds.push_back(
            std::abs(static_cast<double>(dy[i]) * up[i]) * s * kU *
                ((test::kExpError + 8) * inner + std::abs(gate[i]) * (test::kExpError + 4)) +
            1e-36);
      }
      EXPECT_TRUE(test::all_within(dgate.span(), want_dgate, bounds));
      EXPECT_TRUE(test::all_close(dup.span(), want_dup,
                                  {.absolute = 1e-36, .relative = (test::kExpError + 5) * kU}));
      EXPECT_TRUE(dgate.intact() && dup.intact());
    }
  });
}

TEST(SiluMulBackward, TheTwinIsTheSlopeOfTheProduct) {
  Rng rng(5);
  const int64_t count = 20;
  auto gate = test::normal_values(count, rng, 3);
  auto up = test::normal_values(count, rng);
  const auto dy = test::normal_values(count, rng);
  std::vector<float> dgate(static_cast<size_t>(count)), dup(static_cast<size_t>(count)),
      y(static_cast<size_t>(count));
  ref::silu_mul_backward({count, gate.data(), up.data(), dy.data(), dgate.data(), dup.data()});
  const auto loss = [&] {
    ref::silu_mul({count, gate.data(), up.data(), y.data()});
    return weighted(y, dy);
  };
  loss();
  const double size = magnitude(y, dy);
  for (int64_t i = 0; i < count; ++i) {
    for (auto* parameter : {&gate, &up}) {
      const float old = (*parameter)[i];
      const Slope s = slope(
          [&](float step) {
            (*parameter)[i] = old + step;
            const double value = loss();
            (*parameter)[i] = old;
            return value;
          },
          size);
      EXPECT_NEAR(parameter == &gate ? dgate[i] : dup[i], s.value, s.error);
    }
  }
}

}  // namespace
}  // namespace spear
