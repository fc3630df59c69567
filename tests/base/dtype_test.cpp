#include "spear/base/dtype.h"

#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace spear {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a small float format by its definition: sign, `exponent_bits`, `mantissa_bits`.
double defined_value(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits >> 15) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1)
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

struct Format {
  const char* name;
  int exponent_bits;
  int mantissa_bits;
  uint16_t (*from_float)(float);
  float (*to_float)(uint16_t);
};

class SmallFloat : public ::testing::TestWithParam<Format> {
 protected:
  [[nodiscard]] double value(uint16_t bits) const {
    return defined_value(bits, GetParam().exponent_bits, GetParam().mantissa_bits);
  }
  // The finite positive numbers of the format are the codes below this one, in order.
  [[nodiscard]] uint16_t infinity_code() const {
    return static_cast<uint16_t>(((1 << GetParam().exponent_bits) - 1) << GetParam().mantissa_bits);
  }
};

TEST_P(SmallFloat, EveryCodeHasItsDefinedValueAndComesBack) {
  for (uint32_t i = 0; i <= 0xffff; ++i) {
    const auto code = static_cast<uint16_t>(i);
    const double expected = value(code);
    const float actual = GetParam().to_float(code);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << code;
      ASSERT_TRUE(std::isnan(value(GetParam().from_float(actual)))) << code;
      continue;
    }
    ASSERT_EQ(static_cast<double>(actual), expected) << code;
    ASSERT_EQ(std::signbit(actual), std::signbit(expected)) << code;
    ASSERT_EQ(GetParam().from_float(actual), code);
  }
}

// Between every two neighbours: below the middle goes down, above goes up, the middle goes to the
// even code.
TEST_P(SmallFloat, RoundsToNearestEvenBetweenAllNeighbours) {
  for (uint16_t code = 0; code + 1 < infinity_code(); ++code) {
    const auto next = static_cast<uint16_t>(code + 1);
    const auto middle = static_cast<float>((value(code) + value(next)) / 2);
    ASSERT_EQ(static_cast<double>(middle), (value(code) + value(next)) / 2) << code;
    const uint16_t even = code % 2 == 0 ? code : next;
    const uint16_t sign = 0x8000;
    ASSERT_EQ(GetParam().from_float(middle), even) << code;
    ASSERT_EQ(GetParam().from_float(-middle), even | sign) << code;
    ASSERT_EQ(GetParam().from_float(std::nextafter(middle, 0.0f)), code) << code;
    ASSERT_EQ(GetParam().from_float(std::nextafter(middle, kInfinity)), next) << code;
  }
}

TEST_P(SmallFloat, OverflowsToInfinityFromTheMiddleOfTheLastStep) {
  const auto last = static_cast<uint16_t>(infinity_code() - 1);
  const double step = value(last) - value(static_cast<uint16_t>(last - 1));
  const auto edge = static_cast<float>(value(last) + step / 2);
  EXPECT_EQ(GetParam().from_float(edge), infinity_code());
  EXPECT_EQ(GetParam().from_float(std::nextafter(edge, 0.0f)), last);
  EXPECT_EQ(GetParam().from_float(kInfinity), infinity_code());
  EXPECT_EQ(GetParam().from_float(-kInfinity), infinity_code() | 0x8000);
}

TEST_P(SmallFloat, TinyValuesGoToZeroWithTheirSign) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(GetParam().from_float(tiny), 0);
  EXPECT_EQ(GetParam().from_float(-tiny), 0x8000);
  EXPECT_EQ(GetParam().from_float(-0.0f), 0x8000);
}

TEST_P(SmallFloat, NanStaysNanWhateverItsPayload) {
  for (const uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu})
    EXPECT_TRUE(std::isnan(GetParam().to_float(GetParam().from_float(std::bit_cast<float>(bits)))));
}

std::string format_name(const ::testing::TestParamInfo<Format>& format) {
  return format.param.name;
}

INSTANTIATE_TEST_SUITE_P(Formats, SmallFloat,
                         ::testing::Values(Format{"f16", 5, 10, f16_from_float, float_from_f16},
                                           Format{"bf16", 8, 7, bf16_from_float, float_from_bf16}),
                         format_name);

TEST(DType, HasASizeAndAName) {
  EXPECT_EQ(size_of(DType::kF32), 4u);
  EXPECT_EQ(size_of(DType::kI32), 4u);
  EXPECT_EQ(size_of(DType::kF16), 2u);
  EXPECT_EQ(size_of(DType::kBF16), 2u);
  EXPECT_EQ(size_of(DType::kI8), 1u);
  EXPECT_EQ(size_of(DType::kU8), 1u);
  EXPECT_STREQ(name_of(DType::kBF16), "bf16");
  EXPECT_STREQ(name_of(DType::kF16), "f16");
}

}  // namespace
}  // namespace spear
