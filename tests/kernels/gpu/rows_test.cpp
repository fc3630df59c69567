// The fused linear for few tokens against the plain twin in double precision: every layout, every
// number of tokens, compensators, every kind of input and output, and what is owed to the next
// product. Outputs are pre-filled with NaN between guards.
#include "spear/kernels/gpu/rows.h"

#include <cmath>

#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/gpu/packed_matrix.h"
#include "spear/kernels/ref/quantized_view.h"

#include "kernels/gpu/device.h"
#include "kernels/quantized_case.h"
#include "support/closeness.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

using gpu::RowsArgs;
using gpu::RowsInput;
using gpu::RowsOutput;

// Bound of one product: activations rounded to F16 (and, for high nibbles, to a quarter of F16's
// smallest step), codes and zero points summed apart in F32.
std::vector<double> bounds_of(const W4LinearArgs& a) {
  std::vector<double> out;
  const double sums = test::gamma(a.w.k + 64, test::kRoundoffF32);
  std::vector<float> w(static_cast<size_t>(a.w.n) * static_cast<size_t>(a.w.k));
  dequantize_rows(a.w, 0, a.w.n, w.data());
  for (int64_t i = 0; i < a.m; ++i) {
    const float* x = a.x + i * a.w.k;
    std::vector<double> u;
    for (int32_t r = 0; r < a.ec.rank; ++r) {
      double size = 0;
      for (int32_t j = 0; j < a.w.k; ++j)
        size += std::abs(
            static_cast<double>(ref::factor_at(a.ec, a.ec.a, a.ec.a_scales, r, j, a.w.k)) * x[j]);
      u.push_back(size);
    }
    // The gate's own error: its slopes are sums of |w2| |w1|, at most this much.
    double slope = 1;
    if (a.ec.gate_hidden > 0) {
      double most1 = 0;
      double most2 = 0;
      for (int32_t h = 0; h < a.ec.gate_hidden * a.ec.rank; ++h) {
        most1 = std::max(most1, std::abs(static_cast<double>(float_from_f16(a.ec.w1[h]))));
        most2 = std::max(most2, std::abs(static_cast<double>(float_from_f16(a.ec.w2[h]))));
      }
      double all = 0;
      for (const double v : u) all += v;
      slope = 2 + most1 * most2 * a.ec.gate_hidden * all;
    }
    for (int32_t row = 0; row < a.w.n; ++row) {
      double size = 0;
      double step = 0;
      for (int32_t j = 0; j < a.w.k; ++j) {
        double most = std::abs(static_cast<double>(w[static_cast<size_t>(row) * a.w.k + j]));
        if (a.w.bits != 16) {
          const int64_t g = a.w.groups() == 1 ? 0 : j / a.w.group;
          most += 2 * std::abs(static_cast<double>(ref::zero_at(a.w, row, g)) *
                               ref::scale_at(a.w, row, g));
        }
        size += most * std::abs(static_cast<double>(x[j]));
        step += most;
      }
      double bound = (test::kRoundoffF16 + sums) * size + step * 0x1p-20;
      for (int32_t r = 0; r < a.ec.rank; ++r)
        bound += std::abs(static_cast<double>(
                     ref::factor_at(a.ec, a.ec.b, a.ec.b_scales, r, row, a.w.n))) *
                 u[static_cast<size_t>(r)] * 4 * sums * slope;
      if (a.bias != nullptr) bound += std::abs(static_cast<double>(a.bias[row])) * 0x1p-22;
      out.push_back(bound);
    }
  }
  return out;
}

class RowsTest : public test::DeviceTest {
 protected:
  gpu::DeviceMatrix matrix(const gpu::PackedMatrix& p) {
    return {p.shape.n,
            p.shape.k,
            p.shape.bits,
            p.shape.group,
            p.shape.tiles(),
            p.shape.units(),
            p.shape.unit_bytes(),
            put(p.units),
            p.row_scales.empty() ? nullptr : put(p.row_scales)};
  }
  gpu::DeviceCompensators compensators(const gpu::PackedCompensators& p) {
    gpu::DeviceCompensators out;
    if (p.width == 0) return out;
    out.width = p.width;
    out.b_stride = p.b_stride;
    out.modules = static_cast<int32_t>(p.modules.size());
    out.interleaved = p.order == gpu::RowOrder::kInterleaved;
    for (size_t i = 0; i < p.modules.size(); ++i) {
      const gpu::PackedModule& m = p.modules[i];
      out.module[i] = {m.first_row, m.rank, m.hidden, m.offset, m.gate};
    }
    out.b = put(p.b);
    out.a_scales = put(p.a_scales);
    out.b_scales = put(p.b_scales);
    std::vector<uint16_t> gate = p.gate;
    gate.push_back(0);  // read in pairs
    out.gate = put(gate);
    out.gate_halves = static_cast<int32_t>(p.gate.size());
    return out;
  }
  // Sums of u as three kernels' blocks might have left them: [m, 3, width].
  std::vector<float> partials(const gpu::PackedCompensators& p, const std::vector<float>& x,
                              int64_t m, int64_t k) {
    std::vector<float> out;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t part = 0; part < 3; ++part)
        for (int32_t j = 0; j < p.width; ++j) {
          double sum = 0;
          for (int64_t c = k * part / 3; c < k * (part + 1) / 3; ++c)
            sum += static_cast<double>(x[static_cast<size_t>(i * k + c)]) *
                   p.a[static_cast<size_t>(c * p.width + j)];
          out.push_back(static_cast<float>(sum));
        }
    return out;
  }
  static std::vector<uint16_t> halves(const std::vector<float>& values) {
    std::vector<uint16_t> out;
    for (const float v : values) out.push_back(f16_from_float(v));
    return out;
  }

  void check(const test::QuantizedShape& shape, const std::vector<int32_t>& tokens) {
    const test::QuantizedCase c(shape, 5);
    const W4LinearArgs any = c.args(0, nullptr, nullptr);
    const QuantizedView view = any.w;
    const gpu::PackedMatrix packed = gpu::pack_matrices({&view, 1}, gpu::RowOrder::kStacked);
    gpu::PackedCompensators ec;
    ASSERT_TRUE(gpu::pack_compensators({&any.ec, 1}, {&view, 1}, gpu::RowOrder::kStacked, &ec));
    RowsArgs args{.w = matrix(packed), .ec = compensators(ec)};
    if (any.bias != nullptr) args.bias = put(std::vector<float>(any.bias, any.bias + shape.n));
    for (const int32_t m : tokens) {
      Rng rng(static_cast<uint64_t>(m));
      std::vector<float> x = test::normal_values(static_cast<int64_t>(m) * shape.k, rng);
      std::vector<float> want(static_cast<size_t>(m) * static_cast<size_t>(shape.n));
      ref::w4_linear(c.args(m, x.data(), want.data()));
      const std::vector<double> bounds = bounds_of(c.args(m, x.data(), want.data()));
      args.m = m;
      args.x = put(halves(x));
      args.u = {ec.width == 0 ? nullptr : put(partials(ec, x, m, shape.k)), 3};
      Guarded<float> y(want.size());
      args.y = y.data();
      ASSERT_TRUE(gpu::rows_fits(args, multiprocessors_)) << c.text();
      gpu::rows(args, multiprocessors_, false, stream_);
      EXPECT_TRUE(test::all_within(y.values(), want, bounds, {shape.n})) << c.text() << ", m " << m;
    }
    release();
  }
};

TEST_F(RowsTest, EveryLayoutEqualsTheTwin) {
  using enum ZeroKind;
  for (const auto& [n, k] : {std::pair{8, 128},
                             {1, 8},
                             {7, 64},
                             {9, 200},
                             {17, 576},
                             {24, 1032},
                             {1072, 264},
                             {2112, 640},
                             {3000, 136}})
    for (const ZeroKind kind : {kNone, kU4, kU8, kF16})
      check({.n = n, .k = k, .zero_kind = kind}, {1, 2, 3, 8});
  for (const int32_t group : {64, 128, 256})
    for (const int32_t n : {5, 40, 1100})
      for (const int32_t units : {1, 3, 9})
        for (const ZeroKind kind : {kNone, kU8})
          check({.n = n, .k = group * units, .group = group, .zero_kind = kind}, {1, 4, 7});
}

TEST_F(RowsTest, OtherWidthsOfCodes) {
  for (const int32_t bits : {2, 3, 6, 8})
    for (const auto& [n, k] : {std::pair{9, 72}, {1100, 640}})
      check({.n = n, .k = k, .bits = bits, .zero_kind = ZeroKind::kNone}, {1, 5});
  check({.n = 300, .k = 256, .bits = 4, .group = 32, .zero_kind = ZeroKind::kNone}, {1, 3});
}

TEST_F(RowsTest, CompensatorsOfEveryShape) {
  for (const auto& [rank, hidden] :
       {std::pair{1, 0}, {2, 0}, {8, 3}, {16, 64}, {40, 160}, {74, 40}})
    for (const int32_t bits : {4, 8})
      for (const auto& [n, k] : {std::pair{9, 72}, {1100, 640}})
        check({.n = n,
               .k = k,
               .rank = rank,
               .factor_bits = bits,
               .gate_hidden = hidden,
               .bias = rank % 2 == 0},
              {1, 2, 8});
}

// Three stacked matrices behind a norm; gate and up interleaved with SiLU; a residual sum; and what
// each owes the next product.
TEST_F(RowsTest, FusedInputsAndOutputs) {
  const int32_t k = 576;
  Rng rng(3);
  for (const int32_t m : {1, 3, 8}) {
    const std::vector<float> x = test::normal_values(static_cast<int64_t>(m) * k, rng, 40);
    const std::vector<float> weight = test::normal_values(k, rng);
    std::vector<float> normed(x.size());
    ref::rms_norm({m, k, x.data(), weight.data(), 1e-5f, normed.data()});
    std::vector<float> weighted = x;  // what the maker of x projects: before the norm's scale
    for (size_t i = 0; i < x.size(); ++i) weighted[i] *= weight[i % static_cast<size_t>(k)];

    const test::QuantizedCase q({.n = 576, .k = k, .rank = 4, .gate_hidden = 16}, 1);
    const test::QuantizedCase key({.n = 192, .k = k}, 2);
    const test::QuantizedCase value({.n = 192, .k = k, .group = 64, .rank = 2}, 3);
    std::vector<QuantizedView> views;
    std::vector<CompensatorView> ecs;
    std::vector<float> want;
    std::vector<double> bounds;
    std::vector<std::vector<float>> part;
    std::vector<std::vector<double>> part_bounds;
    for (const test::QuantizedCase* c : {&q, &key, &value}) {
      std::vector<float> y(static_cast<size_t>(m) * static_cast<size_t>(c->w().n));
      const W4LinearArgs a = c->args(m, normed.data(), y.data());
      ref::w4_linear(a);
      views.push_back(a.w);
      ecs.push_back(a.ec);
      part_bounds.push_back(bounds_of(a));
      part.push_back(std::move(y));
    }
    for (int32_t i = 0; i < m; ++i)
      for (size_t p = 0; p < part.size(); ++p) {
        const auto n = static_cast<size_t>(views[p].n);
        const auto from = static_cast<size_t>(i) * n;
        want.insert(want.end(), part[p].begin() + from, part[p].begin() + from + n);
        bounds.insert(bounds.end(), part_bounds[p].begin() + from,
                      part_bounds[p].begin() + from + n);
      }
    const gpu::PackedMatrix packed = gpu::pack_matrices(views, gpu::RowOrder::kStacked);
    EXPECT_EQ(packed.shape.group, 64);
    gpu::PackedCompensators ec;
    ASSERT_TRUE(gpu::pack_compensators(ecs, views, gpu::RowOrder::kStacked, &ec));
    // What this product owes: a random factor over its 960 outputs.
    std::vector<int8_t> next(960 * 16);
    for (int8_t& v : next) v = static_cast<int8_t>(rng.next() >> 24);
    const RowsArgs shape{.w = matrix(packed)};
    const auto blocks = static_cast<size_t>(gpu::rows_blocks(shape.w, multiprocessors_));
    Guarded<float> y(want.size());
    Guarded<float> owed(static_cast<size_t>(m) * blocks * 16);
    gpu::rows({.m = m,
               .w = shape.w,
               .input = RowsInput::kNorm,
               .x = put(x),
               .norm_weight = put(weight),
               .eps = 1e-5f,
               .y = y.data(),
               .ec = compensators(ec),
               .u = {put(partials(ec, weighted, m, k)), 3},
               .next = {16, put(next), nullptr, owed.data()}},
              multiprocessors_, false, stream_);
    const std::vector<float> found = y.values();
    EXPECT_TRUE(test::all_within(found, want, bounds, {960})) << "m " << m;
    const std::vector<float> sums = owed.values();
    for (int32_t i = 0; i < m; ++i)
      for (size_t j = 0; j < 16; ++j) {
        double sum = 0;
        double size = 0;
        double got = 0;
        for (size_t r = 0; r < 960; ++r) {
          const double term =
              static_cast<double>(found[static_cast<size_t>(i) * 960 + r]) * next[r * 16 + j];
          sum += term;
          size += std::abs(term);
        }
        for (size_t b = 0; b < blocks; ++b)
          got += static_cast<double>(sums[(static_cast<size_t>(i) * blocks + b) * 16 + j]);
        EXPECT_NEAR(got, sum, test::gamma(960, test::kRoundoffF32) * size);
      }

    // gate · up
    const test::QuantizedCase gate({.n = 500, .k = k, .rank = 2}, 7);
    const test::QuantizedCase up({.n = 500, .k = k, .rank = 3, .gate_hidden = 5}, 8);
    std::vector<float> g(static_cast<size_t>(m) * 500);
    std::vector<float> u(g.size());
    const W4LinearArgs ga = gate.args(m, normed.data(), g.data());
    const W4LinearArgs ua = up.args(m, normed.data(), u.data());
    ref::w4_linear(ga);
    ref::w4_linear(ua);
    const std::vector<double> gb = bounds_of(ga);
    const std::vector<double> ub = bounds_of(ua);
    const QuantizedView both[2] = {ga.w, ua.w};
    const CompensatorView both_ec[2] = {ga.ec, ua.ec};
    const gpu::PackedMatrix pair = gpu::pack_matrices(both, gpu::RowOrder::kInterleaved);
    gpu::PackedCompensators pair_ec;
    ASSERT_TRUE(gpu::pack_compensators(both_ec, both, gpu::RowOrder::kInterleaved, &pair_ec));
    Guarded<uint16_t> activated(g.size());
    gpu::rows({.m = m,
               .w = matrix(pair),
               .input = RowsInput::kNorm,
               .x = put(x),
               .norm_weight = put(weight),
               .eps = 1e-5f,
               .output = RowsOutput::kSilu,
               .half_y = activated.data(),
               .ec = compensators(pair_ec),
               .u = {put(partials(pair_ec, weighted, m, k)), 3}},
              multiprocessors_, false, stream_);
    const std::vector<uint16_t> bits = activated.values();
    std::vector<double> silu_found, silu_want, silu_bounds;
    for (size_t i = 0; i < g.size(); ++i) {
      const double activation =
          static_cast<double>(g[i]) / (1 + std::exp(-static_cast<double>(g[i])));
      silu_found.push_back(static_cast<double>(float_from_f16(bits[i])) * gpu::kSiluScale);
      silu_want.push_back(activation * static_cast<double>(u[i]));
      // |silu'| ≤ 1.1; the exponential and the division a few roundoffs; one rounding to F16.
      silu_bounds.push_back(1.1 * gb[i] * (std::abs(static_cast<double>(u[i])) + ub[i]) +
                            std::abs(activation) * ub[i] +
                            (test::kRoundoffF16 + 0x1p-20) * std::abs(silu_want.back()) + 0x1p-20);
    }
    EXPECT_TRUE(test::within_bounds(silu_found, silu_want, silu_bounds, 500)) << "m " << m;

    // A residual sum over the same input, plain.
    const test::QuantizedCase down({.n = 576, .k = k, .bias = true}, 9);
    std::vector<float> sum(static_cast<size_t>(m) * 576);
    const W4LinearArgs da = down.args(m, normed.data(), sum.data());
    ref::w4_linear(da);
    std::vector<double> sum_bounds = bounds_of(da);
    const gpu::PackedMatrix down_packed = gpu::pack_matrices({&da.w, 1}, gpu::RowOrder::kStacked);
    float* stream_x = put(x);
    gpu::rows({.m = m,
               .w = matrix(down_packed),
               .x = put(halves(normed)),
               .output = RowsOutput::kResidual,
               .bias = put(std::vector<float>(da.bias, da.bias + 576)),
               .y = stream_x},
              multiprocessors_, false, stream_);
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += x[i];
      sum_bounds[i] += 0x1p-22 * std::abs(static_cast<double>(x[i]));
    }
    EXPECT_TRUE(test::all_within(get(stream_x, sum.size()), sum, sum_bounds, {576})) << "m " << m;
    release();
  }
}

}  // namespace
}  // namespace spear
