// The fused GPU kernels' layout: every code, scale and zero point comes back from it.
#include <set>

#include <gtest/gtest.h>

#include "spear/kernels/gpu/packed_matrix.h"

#include "kernels/quantized_case.h"

namespace spear {
namespace {

void expect_round_trip(const test::QuantizedShape& shape, int32_t stored_bits) {
  const test::QuantizedCase c(shape, 3);
  const QuantizedView view = c.w();
  const gpu::PackedMatrix packed = gpu::pack_matrices({&view, 1}, gpu::RowOrder::kStacked);
  EXPECT_EQ(packed.shape.bits, stored_bits) << c.text();
  EXPECT_EQ(packed.units.size(), packed.shape.bytes());
  std::vector<float> want(static_cast<size_t>(view.n) * static_cast<size_t>(view.k));
  dequantize_rows(view, 0, view.n, want.data());
  for (int32_t i = 0; i < view.n; ++i)
    for (int32_t j = 0; j < view.k; ++j) {
      const float value =
          want[static_cast<size_t>(i) * static_cast<size_t>(view.k) + static_cast<size_t>(j)];
      const float stored = stored_bits == 16 ? float_from_f16(f16_from_float(value)) : value;
      ASSERT_EQ(gpu::packed_value(packed, i, j), stored) << c.text() << " at " << i << ", " << j;
    }
}

TEST(GpuPackedMatrix, EveryElementComesBack) {
  using enum ZeroKind;
  for (const ZeroKind kind : {kNone, kU4, kU8, kF16})
    for (const auto& [n, k] : {std::pair{8, 128}, {1, 8}, {13, 200}, {40, 576}}) {
      expect_round_trip({.n = n, .k = k, .zero_kind = kind}, 4);
      if (k % 64 == 0) expect_round_trip({.n = n, .k = k, .group = 64, .zero_kind = kind}, 4);
    }
  expect_round_trip({.n = 9, .k = 512, .group = 128}, 4);
  expect_round_trip({.n = 9, .k = 512, .group = 256}, 4);
  expect_round_trip({.n = 9, .k = 200, .bits = 3, .zero_kind = kNone}, 4);
  expect_round_trip({.n = 9, .k = 200, .bits = 6, .zero_kind = kNone}, 8);
  expect_round_trip({.n = 9, .k = 200, .bits = 8, .zero_kind = kNone}, 8);
  expect_round_trip({.n = 9, .k = 192, .group = 32}, 16);
  expect_round_trip({.n = 9, .k = 192, .bits = 8, .group = 64, .zero_kind = kNone}, 16);
}

TEST(GpuPackedMatrix, RowsOfTwoMatricesInterleave) {
  const test::QuantizedCase gate({.n = 11, .k = 136}, 1);
  const test::QuantizedCase up({.n = 11, .k = 136}, 2);
  const QuantizedView parts[2] = {gate.w(), up.w()};
  const gpu::PackedMatrix packed = gpu::pack_matrices(parts, gpu::RowOrder::kInterleaved);
  std::vector<float> row(136);
  for (int32_t i = 0; i < 22; ++i) {
    dequantize_rows(parts[i % 2], i / 2, i / 2 + 1, row.data());
    for (int32_t j = 0; j < 136; ++j)
      ASSERT_EQ(gpu::packed_value(packed, i, j), row[static_cast<size_t>(j)]);
  }
}

TEST(GpuPackedMatrix, TheFinestGroupingHoldsAll) {
  const test::QuantizedCase whole({.n = 8, .k = 576}, 1);
  const test::QuantizedCase grouped({.n = 16, .k = 576, .group = 64}, 2);
  const QuantizedView parts[2] = {whole.w(), grouped.w()};
  const gpu::PackedMatrix packed = gpu::pack_matrices(parts, gpu::RowOrder::kStacked);
  EXPECT_EQ(packed.shape.group, 64);
  EXPECT_FALSE(packed.expanded);
  std::vector<float> row(576);
  for (int32_t i = 0; i < 24; ++i) {
    const QuantizedView& from = parts[i < 8 ? 0 : 1];
    dequantize_rows(from, i < 8 ? i : i - 8, i < 8 ? i + 1 : i - 7, row.data());
    for (int32_t j = 0; j < 576; ++j)
      ASSERT_EQ(gpu::packed_value(packed, i, j), row[static_cast<size_t>(j)]);
  }
}

TEST(GpuPackedMatrix, CompensatorsStandSideBySide) {
  const test::QuantizedCase first({.n = 10, .k = 64, .rank = 5, .gate_hidden = 3}, 1);
  const test::QuantizedCase other({.n = 6, .k = 64, .rank = 2, .factor_bits = 4}, 2);
  const W4LinearArgs a = first.args(0, nullptr, nullptr);
  const W4LinearArgs b = other.args(0, nullptr, nullptr);
  const QuantizedView of[2] = {a.w, b.w};
  const CompensatorView parts[2] = {a.ec, b.ec};
  gpu::PackedCompensators packed;
  ASSERT_TRUE(gpu::pack_compensators(parts, of, gpu::RowOrder::kStacked, &packed));
  EXPECT_EQ(packed.width, 8);
  EXPECT_EQ(packed.b_stride, 8);
  ASSERT_EQ(packed.modules.size(), 2u);
  EXPECT_EQ(packed.modules[1].first_row, 10);
  EXPECT_EQ(packed.modules[1].offset, 5);
  EXPECT_EQ(packed.gate.size(), 2u * 15 + 3 + 5);
  EXPECT_EQ(packed.a[3 * 8 + 2], static_cast<const int8_t*>(a.ec.a)[2 * 64 + 3]);
  EXPECT_EQ(packed.b[4 * 8 + 1], static_cast<const int8_t*>(a.ec.b)[1 * 10 + 4]);
  EXPECT_EQ(packed.a_scales[6], float_from_f16(b.ec.a_scales[1]));
}

TEST(GpuPackedMatrix, WhatHasNoFastFormIsRefused) {
  const test::QuantizedCase halves({.n = 10, .k = 64, .rank = 5, .factor_bits = 16}, 1);
  const W4LinearArgs a = halves.args(0, nullptr, nullptr);
  gpu::PackedCompensators packed;
  EXPECT_FALSE(gpu::pack_compensators({&a.ec, 1}, {&a.w, 1}, gpu::RowOrder::kStacked, &packed));
}

}  // namespace
}  // namespace spear
