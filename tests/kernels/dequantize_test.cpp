#include <cmath>
#include <cstring>

#include "kernels/each_isa.h"
#include "kernels/quantized_case.h"
#include "support/guarded_buffer.h"

namespace spear {
namespace {

TEST(DequantizeRows, ReadsTheBitStreamLowBitsFirst) {
  const uint8_t codes[] = {0b10'001'000, 0b1'100'011'0, 0b111'110'10};  // 3 bits: 0 1 2 3 4 5 6 7
  const uint16_t scale = f16_from_float(0.5f);
  const QuantizedView w{.n = 1,
                        .k = 8,
                        .bits = 3,
                        .group = 8,
                        .zero_kind = ZeroKind::kNone,
                        .codes = codes,
                        .scales = &scale};
  float out[8];
  dequantize_rows(w, 0, 1, out);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(out[i], static_cast<float>(i - 4) * 0.5f);
}

TEST(DequantizeRows, ReadsEveryKindOfZeroPoint) {
  const uint8_t codes[] = {0x51, 0x51};
  const uint16_t scales[] = {f16_from_float(1), f16_from_float(2)};
  const uint8_t four[] = {0x73};
  const uint8_t eight[] = {56, 8};
  const uint16_t half[] = {f16_from_float(2.25f), f16_from_float(-1)};
  QuantizedView w{.n = 2,
                  .k = 2,
                  .bits = 4,
                  .group = 2,
                  .zero_kind = ZeroKind::kU4,
                  .codes = codes,
                  .scales = scales,
                  .zeros = four};
  float out[4];
  dequantize_rows(w, 0, 2, out);
  EXPECT_EQ(std::vector<float>(out, out + 4), (std::vector<float>{-2, 2, -12, -4}));
  w.zero_kind = ZeroKind::kU8;
  w.zeros = eight;
  dequantize_rows(w, 0, 2, out);
  EXPECT_EQ(std::vector<float>(out, out + 4), (std::vector<float>{-2.5f, 1.5f, 1, 9}));
  w.zero_kind = ZeroKind::kF16;
  w.zeros = half;
  dequantize_rows(w, 0, 2, out);
  EXPECT_EQ(std::vector<float>(out, out + 4), (std::vector<float>{-1.25f, 2.75f, 4, 12}));
}

// A difference and a product are rounded once each wherever they are made, so the results are the
// same bits.
TEST(DequantizeRows, EveryInstructionSetGivesTheSameBits) {
  for (const int32_t bits : {2, 3, 4, 6, 8}) {
    for (const auto& [k, group] : {std::pair<int32_t, int32_t>{1, 0},
                                   {15, 0},
                                   {17, 0},
                                   {63, 0},
                                   {64, 32},
                                   {96, 16},
                                   {60, 20},
                                   {256, 128}}) {
      for (const ZeroKind kind : {ZeroKind::kNone, ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16}) {
        const test::QuantizedCase c(
            {.n = 5, .k = k, .bits = bits, .group = group, .zero_kind = kind}, 3);
        std::vector<float> want(static_cast<size_t>(3 * k));
        std::vector<uint16_t> want_half(static_cast<size_t>(3 * k));
        dequantize_rows(c.w(), 1, 4, want.data());
        dequantize_rows_bf16(c.w(), 1, 4, want_half.data());
        test::each_isa([&](ThreadPool&, const cpu::SimdLoops& loops) {
          test::GuardedBuffer<float> out(3 * k);
          test::GuardedBuffer<uint16_t> half(3 * k);
          std::vector<float> scratch(static_cast<size_t>(k));
          loops.dequantize(c.w(), 1, 4, out.data());
          loops.dequantize_bf16(c.w(), 1, 4, half.data(), scratch.data());
          EXPECT_EQ(out.values(), want) << c.text();
          EXPECT_EQ(half.values(), want_half) << c.text();
          EXPECT_TRUE(out.intact() && half.intact());
        });
      }
    }
  }
}

TEST(DequantizeRows, SixteenBitsAreBf16Values) {
  const uint16_t values[] = {bf16_from_float(1.5f), bf16_from_float(-3)};
  uint8_t bytes[4];
  std::memcpy(bytes, values, 4);
  float out[2];
  dequantize_rows({.n = 1, .k = 2, .bits = 16, .group = 2, .codes = bytes}, 0, 1, out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], -3.0f);
}

TEST(ToBf16, RoundsToNearestEvenAndKeepsNan) {
  const float values[] = {1.0f, 1.00390625f, 1.01171875f, -2.7f, INFINITY, -INFINITY,
                          NAN,  3.4e38f,     1e-40f,      0,     1.1f,     2.2f,
                          3.3f, 4.4f,        5.5f,        6.6f,  7.7f};
  test::each_isa([&](ThreadPool&, const cpu::SimdLoops& loops) {
    test::GuardedBuffer<uint16_t> out(17);
    loops.to_bf16(values, out.data(), 17);
    for (int i = 0; i < 17; ++i) EXPECT_EQ(out.data()[i], bf16_from_float(values[i])) << values[i];
    EXPECT_TRUE(out.intact());
  });
}

}  // namespace
}  // namespace spear
