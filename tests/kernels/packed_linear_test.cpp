// Packed panels: the layout and its inverse, the rounding of activations, and the fused linear of
// every instruction set against double precision on the rounded activations.
#include "spear/kernels/layout/packed_linear.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/base/host_buffer.h"
#include "spear/kernels/cpu/packed/packed_select.h"
#include "spear/kernels/cpu/packed/widen_gate.h"
#include "spear/kernels/ref/quantized_view.h"

#include "kernels/each_isa.h"
#include "kernels/gate_bounds.h"
#include "kernels/quantized_case.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"

namespace spear {
namespace {

using cpu::PackedKernels;
constexpr double kU = test::kRoundoffF32;

LinearSource source_of(const test::QuantizedCase& c) {
  const W4LinearArgs args = c.args(0, nullptr, nullptr);
  return {args.w, args.ec, args.bias};
}

// ---------------------------------------------------------------- layout

void check_panel(const PackedPart& part, std::span<const LinearSource> sources, int64_t panel) {
  std::vector<uint8_t> bytes(static_cast<size_t>(part.panel_bytes), 0xcd);
  pack_panel(part, sources, panel, bytes.data());
  const UnpackedPanel found = unpack_panel(part, bytes.data());
  const int32_t groups = part.columns / part.group;
  for (int32_t i = 0; i < kPanelRows; ++i) {
    const bool second = part.rows_per_panel == 16 && i >= 16;
    const LinearSource& source = sources[second ? 1 : 0];
    const int64_t row = panel * part.rows_per_panel + i % part.rows_per_panel;
    const bool there = row < part.n;
    const uint8_t* codes =
        there ? source.weight.codes + static_cast<size_t>(row) * source.weight.row_bytes()
              : nullptr;
    for (int32_t j = 0; j < part.columns; ++j) {
      const uint32_t want = there && j < part.k ? ref::code_at(codes, source.weight.bits, j) : 0u;
      ASSERT_EQ(found.codes[static_cast<size_t>(i * part.columns + j)], want) << i << " " << j;
    }
    for (int32_t g = 0; g < groups; ++g) {
      const auto at = static_cast<size_t>(i * groups + g);
      ASSERT_EQ(found.scales[at], there ? ref::scale_at(source.weight, row, g) : 0.0f);
      ASSERT_EQ(found.zeros[at], there ? ref::zero_at(source.weight, row, g) : 0.0f);
    }
    const int32_t rank = part.ranks[i / 16];
    for (int32_t r = 0; r < rank; ++r) {
      const auto at = static_cast<size_t>((i >= 16 ? 16 * part.ranks[0] : 0) + i % 16 * rank + r);
      const bool real = there && r < source.ec.rank;
      const float want =
          real ? ref::factor_at(source.ec, source.ec.b, source.ec.b_scales, r, row, part.n) : 0.0f;
      const float scale = real ? float_from_f16(source.ec.b_scales[r]) : 0.0f;
      ASSERT_EQ(static_cast<float>(found.factors[at]) * scale, want) << i << " " << r;
    }
    if (part.bias) {
      ASSERT_EQ(found.bias[static_cast<size_t>(i)],
                there && source.bias != nullptr ? source.bias[row] : 0.0f);
    }
  }
}

TEST(PackedLayout, UnpackingGivesBackWhatWasPacked) {
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const ZeroKind kind : {ZeroKind::kNone, ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16})
      for (const int32_t group : {0, 32, 64, 128})
        for (const int32_t n : {1, 16, 31, 32, 33, 70}) {
          const int32_t k = group == 0 ? 70 + n : 256;
          const test::QuantizedCase a({.n = n,
                                       .k = k,
                                       .bits = bits,
                                       .group = group,
                                       .zero_kind = kind,
                                       .rank = n % 6,
                                       .bias = n % 2 == 0},
                                      5);
          const test::QuantizedCase b({.n = n,
                                       .k = k,
                                       .bits = bits,
                                       .group = group,
                                       .zero_kind = kind,
                                       .rank = 3,
                                       .factor_bits = 4},
                                      6);
          const std::vector<LinearSource> one = {source_of(a)};
          const std::vector<LinearSource> two = {source_of(a), source_of(b)};
          ASSERT_EQ(why_not_packed(one[0]), "");
          ASSERT_EQ(why_not_paired(two[0], two[1]), "");
          for (const auto& sources : {one, two}) {
            const PackedPart part = plan_part(sources);
            for (int64_t panel = 0; panel < part.panels; ++panel) check_panel(part, sources, panel);
          }
        }
}

TEST(PackedLayout, RowsOfACompensatorComeBack) {
  for (const int32_t rank : {1, 2, 3, 4, 5, 8, 13})
    for (const int32_t k : {1, 63, 64, 65, 200}) {
      const test::QuantizedCase c({.n = 4, .k = k, .rank = rank}, 7);
      const CompensatorView ec = source_of(c).ec;
      std::vector<RankRow> rows;
      for (int32_t r = 0; r < rank; ++r) rows.push_back({&ec, r});
      std::vector<uint8_t> packed(packed_rank_bytes(rank, k), 0xcd);
      pack_ranks(rows, k, packed.data());
      const std::vector<int8_t> found = unpack_ranks(packed.data(), rank, k);
      EXPECT_EQ(std::memcmp(found.data(), ec.a, found.size()), 0) << rank << " " << k;
    }
}

TEST(PackedLayout, NamesWhatDoesNotFit) {
  const auto why = [](const test::QuantizedShape& shape) {
    return why_not_packed(source_of(test::QuantizedCase(shape, 1)));
  };
  EXPECT_EQ(why({.n = 4, .k = 40, .group = 20}), "groups of 20 columns");
  EXPECT_EQ(why({.n = 1, .k = 65540}), "rows of 65540 columns");
  EXPECT_EQ(why({.n = 4, .k = 40, .rank = 65}), "a compensator of rank 65");
  EXPECT_EQ(why({.n = 4, .k = 40, .rank = 2, .factor_bits = 16}), "factors of 16 bits");
  EXPECT_EQ(why({.n = 4, .k = 40, .rank = 2, .gate_hidden = 300}), "a gate of 300 hidden units");
}

// ---------------------------------------------------------------- kernels

struct Case {
  test::QuantizedShape shape;
  int32_t digits = 1, block = 0;  // 0: one scale a token
  bool paired = false;
  bool normalize = false;
  cpu::Epilogue epilogue = cpu::Epilogue::kStore;
};

std::string text_of(const Case& c, const char* kernel) {
  return std::string(kernel) + ", " + test::QuantizedCase(c.shape, 1).text() + ", digits " +
         std::to_string(c.digits) + ", block " + std::to_string(c.block) +
         (c.paired ? ", paired" : "");
}

cpu::InputShape input_shape(const Case& c, const PackedPart& part) {
  cpu::InputShape in{.k = part.k, .columns = rank_columns(part.k), .digits = c.digits};
  in.block = c.block == 0 ? in.columns : c.block;
  if (!part.per_channel)
    in.segment = in.block < in.columns ? std::gcd(in.block, part.group) : part.group;
  return in;
}

// Tokens in arrays that tell on whoever writes outside.
struct Tokens {
  test::GuardedBuffer<int8_t> codes;
  test::GuardedBuffer<float> scales, sums, totals, rank_scales;
  test::GuardedBuffer<int32_t> counts;
  test::GuardedBuffer<int16_t> ranks;
  cpu::QuantizedTokens view;

  Tokens(const cpu::InputShape& in, int64_t m, int32_t rank_stride, int32_t modules)
      : codes(m * in.digits * in.columns),
        scales(m * in.digits * cpu::pieces(in.columns, in.block)),
        sums(m * cpu::pieces(in.columns, in.segment)),
        totals(m),
        rank_scales(m * modules),
        counts(m * in.digits * cpu::pieces(in.columns, in.block)),
        ranks(m * rank_stride) {
    view = {codes.data(), scales.data(),      counts.data(), sums.data(), totals.data(),
            ranks.data(), rank_scales.data(), rank_stride,   modules};
  }
  [[nodiscard]] bool intact() const {
    return codes.intact() && scales.intact() && sums.intact() && totals.intact() &&
           rank_scales.intact() && counts.intact() && ranks.intact();
  }
};

// What the codes of a token stand for.
std::vector<double> rounded_token(const cpu::InputShape& in, const cpu::QuantizedTokens& tokens,
                                  int64_t token) {
  std::vector<double> x(static_cast<size_t>(in.k), 0.0);
  const int32_t blocks = cpu::pieces(in.columns, in.block);
  for (int64_t d = 0; d < in.digits; ++d) {
    const int64_t row = token * in.digits + d;
    for (int32_t j = 0; j < in.k; ++j)
      x[static_cast<size_t>(j)] += static_cast<double>(tokens.codes[row * in.columns + j]) *
                                   tokens.scales[row * blocks + j / in.block];
  }
  return x;
}

// One module's output and the bound of a kernel's.
struct Bounded {
  double value = 0, bound = 0;
};

std::vector<Bounded> reference(const LinearSource& source, const cpu::InputShape& in,
                               const std::vector<double>& x) {
  const QuantizedView& w = source.weight;
  const CompensatorView& ec = source.ec;
  const int32_t pieces = cpu::pieces(in.columns, in.block) + cpu::pieces(in.columns, in.segment);
  std::vector<double> u, u_error;
  for (int64_t r = 0; r < ec.rank; ++r) {
    double sum = 0, size = 0;
    for (int64_t j = 0; j < w.k; ++j) {
      const double a = ref::factor_at(ec, ec.a, ec.a_scales, r, j, w.k);
      sum += a * x[static_cast<size_t>(j)];
      size += std::abs(a * x[static_cast<size_t>(j)]);
    }
    u.push_back(sum);
    u_error.push_back(test::gamma(2 * pieces * in.digits + 4, kU) * size);
  }
  test::Gated g = test::gate_with_bounds(ec, u, u_error);
  double most = 0;
  for (int64_t r = 0; r < ec.rank; ++r) {
    const double scale = float_from_f16(ec.b_scales[r]);
    most = std::max(most, (std::abs(g.value[r]) + g.error[r]) * scale);
  }
  const double step = most / 32767 * (1 + 8 * kU);  // of the int16 ranks
  std::vector<Bounded> out;
  for (int64_t row = 0; row < w.n; ++row) {
    const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
    double sum = 0, size = 0;
    for (int64_t j = 0; j < w.k; ++j) {
      const int64_t at = j / (w.k / w.groups());
      const double q = ref::code_at(codes, w.bits, j);
      const double z = ref::zero_at(w, row, at);
      const double s = ref::scale_at(w, row, at);
      sum += (q - z) * s * x[static_cast<size_t>(j)];
      // 8-bit codes may enter as code - 128
      size += (q + std::abs(z) + (w.bits > 4 ? 256 : 0)) * s * std::abs(x[static_cast<size_t>(j)]);
    }
    double bound = test::gamma(3 * pieces * in.digits + 8, kU) * size;
    double total = size;
    for (int64_t r = 0; r < ec.rank; ++r) {
      const double code = static_cast<double>(ref::factor_at(ec, ec.b, ec.b_scales, r, row, w.n)) /
                          float_from_f16(ec.b_scales[r]);
      const double scale = float_from_f16(ec.b_scales[r]);
      sum += code * scale * g.value[r];
      bound += std::abs(code) * (scale * g.error[r] + 0.5 * step);
      total += std::abs(code) * scale * (std::abs(g.value[r]) + g.error[r]);
    }
    if (source.bias != nullptr) {
      sum += source.bias[row];
      total += std::abs(source.bias[row]);
    }
    out.push_back({sum, bound + test::gamma(8, kU) * total});
  }
  return out;
}

Bounded silu_product(const Bounded& gate, const Bounded& up) {
  const double value = gate.value / (1 + std::exp(-gate.value));
  const double error =
      1.1 * gate.bound + (test::kExpError + 4) * kU * std::abs(value);  // slope < 1.1
  return {value * up.value, error * (std::abs(up.value) + up.bound) + std::abs(value) * up.bound +
                                2 * kU * std::abs(value * up.value)};
}

// Everything a job does, on one thread.
class Job {
 public:
  Job(const Case& c, const PackedKernels& kernels, std::vector<LinearSource> sources, int64_t m)
      : c_(c),
        kernels_(kernels),
        sources_(std::move(sources)),
        part_(plan_part(sources_)),
        in_(input_shape(c, part_)),
        m_(m) {
    stream_.resize(static_cast<size_t>(part_.panels * part_.panel_bytes) + 8192);
    for (int64_t p = 0; p < part_.panels; ++p)
      pack_panel(part_, sources_, p, stream_.data() + p * part_.panel_bytes);
    for (const LinearSource& source : sources_) {
      offsets_.push_back(stride_);
      stride_ += (source.ec.rank + 1) / 2 * 2;
      for (int32_t r = 0; r < source.ec.rank; ++r) {
        rows_.push_back({&source.ec, r});
        a_scales_.push_back(float_from_f16(source.ec.a_scales[r]));
      }
    }
    packed_ranks_.resize(packed_rank_bytes(static_cast<int64_t>(rows_.size()), part_.k) + 8192);
    pack_ranks(rows_, part_.k, packed_ranks_.data());
    tokens_ = std::make_unique<Tokens>(in_, m, stride_, static_cast<int32_t>(sources_.size()));
  }

  void quantize(const float* x, float eps) {
    kernels_.quantize({.shape = in_,
                       .x = x,
                       .x_stride = part_.k,
                       .normalize = c_.normalize,
                       .eps = eps,
                       .to = tokens_->view},
                      0, m_);
  }
  // `together`: by the way of many tokens.
  void compensate(bool together) {
    const auto count = static_cast<int64_t>(rows_.size());
    if (count == 0) return;
    std::vector<float> u(static_cast<size_t>(m_ * count));
    if (together) {
      std::vector<uint8_t> panels(static_cast<size_t>(cpu::rank_panel_bytes(count, in_.columns)),
                                  128);
      kernels_.widen_ranks(packed_ranks_.data(), count, in_.columns, 0, panels.data());
      kernels_.project_tokens(in_, tokens_->view, 0, m_, panels.data(), a_scales_.data(), count,
                              u.data(), count);
    } else {
      for (int64_t t = 0; t < m_; ++t)
        kernels_.project(in_, tokens_->view, t, packed_ranks_.data(), count, &u[t * count]);
    }
    finish(u.data(), count);
  }
  void multiply(float* y, int64_t y_stride) {
    cpu::PanelWork work;
    work.part = part_;
    work.input = in_;
    work.tokens = tokens_->view;
    for (int half = 0; half < 2; ++half) {
      work.module[half] = half % static_cast<int>(sources_.size());
      work.rank_offset[half] = offsets_[static_cast<size_t>(work.module[half])];
    }
    work.epilogue = c_.epilogue;
    work.y = y;
    work.y_stride = y_stride;
    kernels_.panels(work, stream_.data(), 0, part_.panels, 0, m_);
  }
  const cpu::InputShape& in() const { return in_; }
  const Tokens& tokens() const { return *tokens_; }

 private:
  void finish(const float* u, int64_t stride) {
    for (size_t i = 0; i < sources_.size(); ++i) {
      const CompensatorView& ec = sources_[i].ec;
      if (ec.rank == 0) continue;
      std::vector<float> scales, memory;
      for (int32_t r = 0; r < ec.rank; ++r) scales.push_back(float_from_f16(ec.b_scales[r]));
      scales.resize(static_cast<size_t>(cpu::padded_gate(ec.rank)), 0.0f);
      kernels_.finish_ranks({.gate = cpu::widen_gate(ec, memory),
                             .rank = ec.rank,
                             .b_scales = scales.data(),
                             .u = u,
                             .u_stride = stride,
                             .out = tokens_->view.ranks + offsets_[i],
                             .out_stride = stride_,
                             .scales = tokens_->view.rank_scales + i,
                             .scale_stride = static_cast<int64_t>(sources_.size())},
                            0, m_);
      u += ec.rank;
    }
  }

  Case c_;
  const PackedKernels& kernels_;
  std::vector<LinearSource> sources_;
  PackedPart part_;
  cpu::InputShape in_;
  int64_t m_;
  std::vector<uint8_t> stream_, packed_ranks_;
  std::vector<RankRow> rows_;
  std::vector<float> a_scales_;
  std::vector<int32_t> offsets_;
  int32_t stride_ = 0;
  std::unique_ptr<Tokens> tokens_;
};

void check(const Case& c, const std::vector<int64_t>& token_counts) {
  const test::QuantizedCase first(c.shape, 11);
  test::QuantizedShape other = c.shape;
  other.rank = c.shape.rank / 2;
  const test::QuantizedCase second(other, 13);
  std::vector<LinearSource> sources = {source_of(first)};
  if (c.paired) sources.push_back(source_of(second));
  Rng rng(12);
  for (const int64_t m : token_counts) {
    const auto x = test::outlier_values(m, c.shape.k, rng);
    const auto before = test::normal_values(m * c.shape.n, rng);
    for (const PackedKernels* kernels : cpu::usable_packed_kernels())
      for (const bool together : {false, true}) {
        Job job(c, *kernels, sources, m);
        job.quantize(x.data(), 1e-5f);
        job.compensate(together);
        test::GuardedBuffer<float> y(m * c.shape.n);
        const bool adds = c.epilogue == cpu::Epilogue::kAdd;
        if (adds) std::copy(before.begin(), before.end(), y.data());
        job.multiply(y.data(), c.shape.n);
        std::vector<double> want, bounds;
        for (int64_t t = 0; t < m; ++t) {
          const auto rounded = rounded_token(job.in(), job.tokens().view, t);
          const auto a = reference(sources[0], job.in(), rounded);
          const auto b = c.paired ? reference(sources[1], job.in(), rounded) : a;
          for (size_t i = 0; i < a.size(); ++i) {
            Bounded e = c.epilogue == cpu::Epilogue::kSiluMul ? silu_product(a[i], b[i]) : a[i];
            if (adds) {
              e.value += before[static_cast<size_t>(t * c.shape.n) + i];
              e.bound += kU * std::abs(e.value) * 2;
            }
            want.push_back(e.value);
            bounds.push_back(e.bound);
          }
        }
        ASSERT_TRUE(test::all_within(y.span(), want, bounds, {c.shape.n}))
            << text_of(c, kernels->name) << ", m " << m;
        ASSERT_TRUE(y.intact()) << text_of(c, kernels->name) << ", m " << m;
        ASSERT_TRUE(job.tokens().intact()) << text_of(c, kernels->name) << ", m " << m;
        if (c.shape.rank == 0) break;
      }
  }
}

const std::vector<int64_t> kTokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

TEST(PackedLinear, AgreesForEveryNumberOfTokens) {
  for (const int32_t digits : {1, 2}) {
    check({.shape = {.n = 40, .k = 100, .rank = 3}, .digits = digits}, kTokens);
    check({.shape = {.n = 33, .k = 128, .bits = 8, .zero_kind = ZeroKind::kF16}, .digits = digits},
          kTokens);
    check({.shape = {.n = 35, .k = 256, .group = 64, .rank = 2, .bias = true}, .digits = digits},
          kTokens);
  }
}

TEST(PackedLinear, AgreesAroundEveryEdgeOfRowsAndColumns) {
  for (const int32_t n : {1, 2, 15, 16, 17, 31, 32, 33, 63, 65})
    for (const int32_t k : {1, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200})
      check({.shape = {.n = n, .k = k, .zero_kind = ZeroKind::kU8, .rank = k % 4}}, {1, 3, 13});
}

TEST(PackedLinear, AgreesForEveryWidthGroupAndZeroKind) {
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const int32_t group : {0, 32, 64, 128})
      for (const ZeroKind kind : {ZeroKind::kNone, ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16})
        check({.shape = {.n = 34, .k = 256, .bits = bits, .group = group, .zero_kind = kind}},
              {1, 5, 12});
}

TEST(PackedLinear, AgreesWithAScaleForEveryBlockOfActivations) {
  for (const int32_t block : {64, 128})
    for (const int32_t group : {0, 32, 64, 128})
      for (const int32_t k : {256, 320})
        if (k % (group == 0 ? 1 : group) == 0)
          for (const int32_t digits : {1, 2})
            check({.shape = {.n = 40, .k = k, .group = group, .rank = 5},
                   .digits = digits,
                   .block = block},
                  {1, 2, 8, 13});
}

TEST(PackedLinear, AddsTheCompensatorOfEveryRankWidthAndGate) {
  for (const int32_t rank : {1, 2, 7, 8, 16, 17, 64})
    for (const int32_t factor_bits : {4, 8})
      for (const int32_t hidden : {0, 1, 20, 64})
        check({.shape = {.n = 37,
                         .k = 130,
                         .rank = rank,
                         .factor_bits = factor_bits,
                         .gate_hidden = hidden,
                         .bias = rank % 2 == 0},
               .digits = 1 + rank % 2},
              {1, 4, 11});
}

TEST(PackedLinear, PairsGateAndUpAndAddsToTheResidual) {
  for (const int32_t n : {5, 16, 40})
    for (const int32_t rank : {0, 1, 8}) {
      check({.shape = {.n = n, .k = 96, .rank = rank, .gate_hidden = rank},
             .paired = true,
             .normalize = true,
             .epilogue = cpu::Epilogue::kSiluMul},
            {1, 2, 13});
      check({.shape = {.n = n, .k = 96, .rank = rank}, .epilogue = cpu::Epilogue::kAdd},
            {1, 2, 13});
    }
}

// Every rounded activation lies within half a step, in one digit and in two, normed or not.
TEST(PackedLinear, RoundsActivationsToTheNearestStep) {
  Rng rng(3);
  for (const int32_t k : {1, 15, 16, 17, 64, 100, 576})
    for (const int32_t digits : {1, 2})
      for (const int32_t block : {0, 64})
        for (const bool normalize : {false, true})
          for (const PackedKernels* kernels : cpu::usable_packed_kernels()) {
            const auto x = test::outlier_values(3, k, rng);
            const auto weight = test::normal_values(k, rng);
            cpu::InputShape in{.k = k, .columns = rank_columns(k), .digits = digits};
            in.block = block == 0 ? in.columns : block;
            Tokens tokens(in, 3, 0, 0);
            kernels->quantize({.shape = in,
                               .x = x.data(),
                               .x_stride = k,
                               .normalize = normalize,
                               .weight = weight.data(),
                               .eps = 1e-5f,
                               .to = tokens.view},
                              0, 3);
            for (int64_t t = 0; t < 3; ++t) {
              double squares = 0;
              for (int32_t j = 0; j < k; ++j)
                squares += static_cast<double>(x[t * k + j]) * x[t * k + j];
              const double factor = normalize ? 1 / std::sqrt(squares / k + 1e-5) : 1;
              const auto found = rounded_token(in, tokens.view, t);
              const int32_t blocks = cpu::pieces(in.columns, in.block);
              double total = 0, size = 0;
              for (int32_t j = 0; j < k; ++j) {
                const double want = factor * x[t * k + j] * weight[j];
                const double step =
                    tokens.view.scales[(t * digits + digits - 1) * blocks + j / in.block];
                EXPECT_NEAR(found[j], want, 0.5 * step + 8 * kU * std::abs(want) + 0x1p-100)
                    << kernels->name << " k " << k << " digits " << digits;
                total += found[j];
                size += std::abs(found[j]);
              }
              EXPECT_NEAR(tokens.view.totals[t], total, 8 * blocks * kU * size + 0x1p-100);
            }
            EXPECT_TRUE(tokens.intact());
          }
}

// A broken input gives a broken output, not a plausible one; a zero token gives zeros.
TEST(PackedLinear, PassesOnWhatIsNotFinite) {
  const test::QuantizedCase c({.n = 20, .k = 70, .rank = 2}, 4);
  for (const PackedKernels* kernels : cpu::usable_packed_kernels())
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
      std::vector<float> x(140, 0.0f);
      x[69] = bad;
      Job job({.shape = {.n = 20, .k = 70, .rank = 2}}, *kernels, {source_of(c)}, 2);
      job.quantize(x.data(), 0);
      job.compensate(false);
      std::vector<float> y(40, 1.0f);
      job.multiply(y.data(), 20);
      for (size_t i = 0; i < 20; ++i) {
        EXPECT_FALSE(std::isfinite(y[i])) << kernels->name;
        EXPECT_EQ(y[20 + i], 0.0f) << kernels->name;
      }
    }
}

}  // namespace
}  // namespace spear
