#include "spear/model/quantized_model.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "support/random_tensors.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

UnpackedMatrix random_matrix(int32_t n, int32_t k, int32_t bits, int32_t group, Rng& rng) {
  UnpackedMatrix m;
  m.n = n;
  m.k = k;
  m.bits = bits;
  m.group = group;
  for (int64_t i = 0; i < int64_t{n} * k; ++i)
    m.codes.push_back(static_cast<uint8_t>(rng.below(1u << bits)));
  for (int64_t i = 0; i < int64_t{n} * (k / group); ++i) {
    m.scales.push_back(float_from_f16(f16_from_float(0.01f + static_cast<float>(rng.uniform()))));
    m.zeros.push_back(static_cast<float>(rng.below(16)));
  }
  return m;
}

TEST(Packing, GivesBackEveryCodeScaleAndZero) {
  Rng rng(3);
  for (const int32_t bits : {2, 3, 4, 6, 8})
    for (const int32_t n : {1, 2, 5})
      for (const int32_t k : {8, 24, 40})
        for (const int32_t group : {8, k})
          for (const ZeroKind kind : {ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16}) {
            const UnpackedMatrix m = random_matrix(n, k, bits, group, rng);
            const QuantizedMatrix packed = pack(m, kind);
            const UnpackedMatrix back = unpack(packed.view());
            EXPECT_EQ(back.codes, m.codes) << bits << " bits, k " << k;
            EXPECT_EQ(back.scales, m.scales);
            EXPECT_EQ(back.zeros, m.zeros);
          }
}

TEST(Packing, OddRowsOfThreeBitCodesStartAtAByte) {
  Rng rng(4);
  const UnpackedMatrix m = random_matrix(3, 7, 3, 7, rng);
  const QuantizedMatrix packed = pack(m, ZeroKind::kU4);
  EXPECT_EQ(packed.view().row_bytes(), 3u);
  EXPECT_EQ(packed.codes.bytes(), 9u);
  EXPECT_EQ(unpack(packed.view()).codes, m.codes);
}

TEST(Packing, FourBitZerosOfAChannelTakeHalfAByte) {
  Rng rng(5);
  EXPECT_EQ(pack(random_matrix(6, 8, 4, 8, rng), ZeroKind::kU4).zeros.bytes(), 3u);
  EXPECT_EQ(pack(random_matrix(7, 8, 4, 8, rng), ZeroKind::kU4).zeros.bytes(), 4u);
}

TEST(Packing, SymmetricMatricesStoreNoZero) {
  Rng rng(6);
  UnpackedMatrix m = random_matrix(3, 8, 4, 8, rng);
  m.symmetric = true;
  m.zeros.assign(3, 8.0f);
  const QuantizedMatrix packed = pack(m, ZeroKind::kU4);
  EXPECT_EQ(packed.zeros.bytes(), 0u);
  EXPECT_EQ(unpack(packed.view()).zeros, m.zeros);
}

TEST(Packing, RealZerosMoveByAtMostHalfAStep) {
  Rng rng(7);
  UnpackedMatrix m = random_matrix(40, 8, 4, 8, rng);
  for (float& zero : m.zeros) zero = static_cast<float>(rng.uniform()) * 15;
  const UnpackedMatrix back = unpack(pack(m, ZeroKind::kU8).view());
  for (size_t i = 0; i < m.zeros.size(); ++i)
    EXPECT_LE(std::fabs(back.zeros[i] - m.zeros[i]), 1.0f / 32);
}

TEST(Compensators, RoundWithinHalfAStepOfTheirRow) {
  Rng rng(8);
  for (const int32_t bits : {4, 8, 16})
    for (const int32_t hidden : {0, 6}) {
      CompensatorValues values;
      values.rank = 3;
      values.n = 7;
      values.k = 9;
      values.gate_hidden = hidden;
      values.a = test::normal_values(27, rng);
      values.b = test::normal_values(21, rng);
      if (hidden > 0) {
        values.w1 = test::rounded_to_f16(test::normal_values(18, rng));
        values.b1 = test::rounded_to_f16(test::normal_values(6, rng));
        values.w2 = test::rounded_to_f16(test::normal_values(18, rng));
        values.b2 = test::rounded_to_f16(test::normal_values(3, rng));
      }
      const ErrorCompensator packed = pack(values, bits);
      const CompensatorValues back = unpack(packed.view(), 7, 9);
      for (int32_t r = 0; r < 3; ++r) {
        float largest = 0;
        for (int32_t j = 0; j < 9; ++j)
          largest = std::max(largest, std::fabs(values.a[static_cast<size_t>(r * 9 + j)]));
        // Half a step, and the rounding of the scale to F16 at the largest code.
        const float step =
            bits == 16 ? largest * 0x1p-10f : largest / static_cast<float>((1 << (bits - 1)) - 1);
        for (int32_t j = 0; j < 9; ++j) {
          const auto i = static_cast<size_t>(r * 9 + j);
          EXPECT_LE(std::fabs(back.a[i] - values.a[i]), step / 2 + largest * 0x1p-10f)
              << bits << " bits";
        }
      }
      EXPECT_EQ(back.w1, values.w1);
      EXPECT_EQ(back.b1, values.b1);
      EXPECT_EQ(back.w2, values.w2);
      EXPECT_EQ(back.b2, values.b2);
    }
}

TEST(Compensators, PackingTwiceChangesNothing) {
  Rng rng(9);
  CompensatorValues values;
  values.rank = 2;
  values.n = 8;
  values.k = 5;
  values.a = test::normal_values(10, rng);
  values.b = test::normal_values(16, rng);
  for (const int32_t bits : {4, 8}) {
    const CompensatorValues once = unpack(pack(values, bits).view(), 8, 5);
    const CompensatorValues twice = unpack(pack(once, bits).view(), 8, 5);
    EXPECT_EQ(once.a, twice.a);
    EXPECT_EQ(once.b, twice.b);
  }
}

TEST(Bytes, CountEveryPartAndMatchThePlainFormula) {
  const DenseModel dense = test::tiny_model();
  QuantizedModel model = test::tiny_quantized(dense, 4);
  // Into the plain form: 4-bit zeros, 8-bit embedding with an F16 scale a row, F16 norms.
  for (QuantizedLayer& layer : model.layers)
    for (QuantizedLinear& linear : layer.linears) {
      UnpackedMatrix m = unpack(linear.weight.view());
      for (float& zero : m.zeros) zero = std::clamp(std::round(zero), 0.0f, 15.0f);
      linear.weight = pack(m, ZeroKind::kU4);
    }
  UnpackedMatrix embedding;
  embedding.n = static_cast<int32_t>(dense.config.vocab_size);
  embedding.k = static_cast<int32_t>(dense.config.hidden_size);
  embedding.bits = 8;
  embedding.group = embedding.k;
  embedding.symmetric = true;
  embedding.codes.assign(static_cast<size_t>(embedding.n) * static_cast<size_t>(embedding.k), 128);
  embedding.scales.assign(static_cast<size_t>(embedding.n), 1.0f);
  embedding.zeros.assign(static_cast<size_t>(embedding.n), 128.0f);
  model.embedding = pack(embedding, ZeroKind::kNone);
  EXPECT_EQ(count_bytes(model).total(), plain_w4_bytes(dense.config));
}

}  // namespace
}  // namespace spear
