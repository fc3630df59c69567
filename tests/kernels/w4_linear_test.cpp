// The quantized linear with its compensator, on every instruction set and product kernel, against
// the plain twin.
#include "spear/kernels/w4_linear.h"

#include <cmath>

#include "spear/base/host_buffer.h"
#include "spear/kernels/ref/quantized_view.h"

#include "kernels/each_isa.h"
#include "kernels/gate_bounds.h"
#include "kernels/quantized_case.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"

namespace spear {
namespace {

constexpr double kU = test::kRoundoffF32;

// Errors of the two ways (docs/numerics.md): `input` is the relative error of each product of
// rounded factors.
struct Way {
  double input = 0;    // BF16: 2 · 2⁻⁸ + 2⁻¹⁶
  bool apart = false;  // codes and zero points are summed apart, and cancel
};

std::vector<double> bounds_of(const W4LinearArgs& a, const Way& way) {
  std::vector<double> bounds;
  std::vector<float> w(static_cast<size_t>(a.w.n) * a.w.k);
  dequantize_rows(a.w, 0, a.w.n, w.data());
  const int64_t k = a.w.k;
  const int64_t group = k / a.w.groups();
  const double summed = test::gamma(k + 4, kU) + way.input;
  for (int64_t i = 0; i < a.m; ++i) {
    const float* x = a.x + i * k;
    std::vector<double> u, u_error;
    for (int64_t r = 0; r < a.ec.rank; ++r) {
      double sum = 0, size = 0;
      for (int64_t j = 0; j < k; ++j) {
        const double term =
            static_cast<double>(ref::factor_at(a.ec, a.ec.a, a.ec.a_scales, r, j, k)) * x[j];
        sum += term;
        size += std::abs(term);
      }
      u.push_back(sum);
      u_error.push_back(summed * size);
    }
    const test::Gated g = test::gate_with_bounds(a.ec, u, u_error);
    for (int64_t row = 0; row < a.w.n; ++row) {
      double size = 0;
      for (int64_t j = 0; j < k; ++j) {
        const int64_t at = j / group;
        const double code =
            w[row * k + j] / ref::scale_at(a.w, row, at) + ref::zero_at(a.w, row, at);
        const double weight = way.apart
                                  ? (std::abs(code) + 2 * std::abs(ref::zero_at(a.w, row, at))) *
                                        ref::scale_at(a.w, row, at)
                                  : w[row * k + j];
        size += std::abs(weight * x[j]);
      }
      double bound = summed * size;
      double total = size + (a.bias != nullptr ? std::abs(a.bias[row]) : 0);
      for (int64_t r = 0; r < a.ec.rank; ++r) {
        const double b = std::abs(ref::factor_at(a.ec, a.ec.b, a.ec.b_scales, r, row, a.w.n));
        bound += b * g.error[r];
        total += b * (std::abs(g.value[r]) + g.error[r]);
      }
      bounds.push_back(bound + test::gamma(a.ec.rank + 3, kU) * total);
    }
  }
  return bounds;
}

// Bounds of both ways; which of them a number of tokens takes is the kernel's business.
void check(const test::QuantizedShape& shape, const std::vector<int64_t>& tokens) {
  const test::QuantizedCase c(shape, 11);
  Rng rng(12);
  for (const int64_t m : tokens) {
    const auto x = test::outlier_values(m, shape.k, rng);
    std::vector<float> want(static_cast<size_t>(m * shape.n));
    ref::w4_linear(c.args(m, x.data(), want.data()));
    const auto exact_bounds = bounds_of(c.args(m, x.data(), want.data()), {.apart = true});
    auto rounded_bounds =
        bounds_of(c.args(m, x.data(), want.data()), {.input = 2 * test::kRoundoffBF16 + 0x1p-16});
    for (size_t i = 0; i < rounded_bounds.size(); ++i) rounded_bounds[i] += exact_bounds[i];
    test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
      for (const GemmKernel& gemm : gemm_kernels()) {
        for (const bool exact : {true, false}) {
          if (!gemm.supports({.a_type = exact ? DType::kF32 : DType::kBF16,
                              .b_type = exact ? DType::kF32 : DType::kBF16}))
            continue;
          test::GuardedBuffer<float> y(m * shape.n);
          HostBuffer workspace;
          cpu::w4_linear(c.args(m, x.data(), y.data()), exact, workspace, pool, gemm, loops);
          EXPECT_TRUE(
              test::all_within(y.span(), want, exact ? exact_bounds : rounded_bounds, {shape.n}))
              << c.text() << ", m " << m << ", " << gemm.name << (exact ? " exact" : " bf16");
          EXPECT_TRUE(y.intact()) << c.text();
        }
      }
    });
  }
}

const std::vector<int64_t> kTokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

TEST(W4Linear, AgreesWithThePlainTwinForEveryNumberOfTokens) {
  check({.n = 19, .k = 40}, kTokens);
  check({.n = 33, .k = 128, .group = 32, .rank = 2, .bias = true}, kTokens);
}

TEST(W4Linear, AgreesWithThePlainTwinAroundEveryEdgeOfRowsAndColumns) {
  for (const int32_t n : {1, 2, 15, 16, 17, 31, 33, 65})
    for (const int32_t k : {1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 127, 129, 192, 200})
      check({.n = n, .k = k}, {1, 3, 9});
}

TEST(W4Linear, AgreesWithThePlainTwinForEveryWidthGroupAndZeroKind) {
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const int32_t group : {0, 16, 20, 32, 64, 128})
      for (const ZeroKind kind : {ZeroKind::kNone, ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16})
        check({.n = 18,
               .k = group == 20 ? 100 : 256,
               .bits = bits,
               .group = group,
               .zero_kind = kind},
              {1, 5, 10});
}

TEST(W4Linear, AddsTheCompensatorOfEveryRankWidthAndGate) {
  for (const int32_t rank : {1, 2, 7, 8, 16, 17})
    for (const int32_t factor_bits : {4, 8, 16})
      for (const int32_t hidden : {0, 1, 3, 4 * rank})
        check({.n = 21,
               .k = 67,
               .rank = rank,
               .factor_bits = factor_bits,
               .gate_hidden = hidden,
               .bias = rank % 2 == 0},
              {1, 4, 11});
}

TEST(W4Linear, RealShapesAgreeOnAFewTokens) {
  check({.n = 192, .k = 576, .rank = 8}, {1, 3, 40});
  check({.n = 100, .k = 1536, .zero_kind = ZeroKind::kF16, .rank = 4, .factor_bits = 4}, {1, 40});
}

}  // namespace
}  // namespace spear
