#include "spear/formats/ggml_types.h"

#include <array>
#include <cstring>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/dtype.h"

namespace spear {
namespace {

constexpr int64_t kSuper = 256;  // values of a K-quant block

constexpr std::array kTypes = {
    GgmlTypeInfo{GgmlType::kF32, "F32", 1, 4},
    GgmlTypeInfo{GgmlType::kF16, "F16", 1, 2},
    GgmlTypeInfo{GgmlType::kBF16, "BF16", 1, 2},
    GgmlTypeInfo{GgmlType::kQ4_0, "Q4_0", 32, 18},
    GgmlTypeInfo{GgmlType::kQ4_1, "Q4_1", 32, 20},
    GgmlTypeInfo{GgmlType::kQ5_0, "Q5_0", 32, 22},
    GgmlTypeInfo{GgmlType::kQ5_1, "Q5_1", 32, 24},
    GgmlTypeInfo{GgmlType::kQ8_0, "Q8_0", 32, 34},
    GgmlTypeInfo{GgmlType::kQ4_K, "Q4_K", kSuper, 144},
    GgmlTypeInfo{GgmlType::kQ5_K, "Q5_K", kSuper, 176},
    GgmlTypeInfo{GgmlType::kQ6_K, "Q6_K", kSuper, 210},
};

// Types of the format that spear does not read, so that a refusal can name them.
constexpr std::array kOtherNames = {
    std::pair{4u, "Q4_2"},     std::pair{5u, "Q4_3"},    std::pair{9u, "Q8_1"},
    std::pair{10u, "Q2_K"},    std::pair{11u, "Q3_K"},   std::pair{15u, "Q8_K"},
    std::pair{16u, "IQ2_XXS"}, std::pair{17u, "IQ2_XS"}, std::pair{18u, "IQ3_XXS"},
    std::pair{19u, "IQ1_S"},   std::pair{20u, "IQ4_NL"}, std::pair{21u, "IQ3_S"},
    std::pair{22u, "IQ2_S"},   std::pair{23u, "IQ4_XS"}, std::pair{24u, "I8"},
    std::pair{25u, "I16"},     std::pair{26u, "I32"},    std::pair{27u, "I64"},
    std::pair{28u, "F64"},     std::pair{29u, "IQ1_M"},  std::pair{34u, "TQ1_0"},
    std::pair{35u, "TQ2_0"},   std::pair{39u, "MXFP4"},
};

using Bytes = const uint8_t*;

float half_at(Bytes p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return float_from_f16(bits);
}

// Blocks of 32: a scale, perhaps a minimum, perhaps the fifth bits, then nibbles: value j sits in
// the low half of byte j, value j + 16 in the high half.
void block_q4_0(Bytes p, float* y) {
  const float d = half_at(p);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((p[2 + j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((p[2 + j] >> 4) - 8) * d;
  }
}

void block_q4_1(Bytes p, float* y) {
  const float d = half_at(p);
  const float m = half_at(p + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(p[4 + j] & 15) * d + m;
    y[j + 16] = static_cast<float>(p[4 + j] >> 4) * d + m;
  }
}

// The five-bit code of value j and of value j + 16.
std::pair<int, int> five_bits(Bytes high, Bytes low, int j) {
  uint32_t bits;
  std::memcpy(&bits, high, sizeof bits);
  const int first = static_cast<int>((bits >> j) & 1u) << 4;
  const int second = static_cast<int>((bits >> (j + 16)) & 1u) << 4;
  return {(low[j] & 15) | first, (low[j] >> 4) | second};
}

void block_q5_0(Bytes p, float* y) {
  const float d = half_at(p);
  for (int j = 0; j < 16; ++j) {
    const auto [a, b] = five_bits(p + 2, p + 6, j);
    y[j] = static_cast<float>(a - 16) * d;
    y[j + 16] = static_cast<float>(b - 16) * d;
  }
}

void block_q5_1(Bytes p, float* y) {
  const float d = half_at(p);
  const float m = half_at(p + 2);
  for (int j = 0; j < 16; ++j) {
    const auto [a, b] = five_bits(p + 4, p + 8, j);
    y[j] = static_cast<float>(a) * d + m;
    y[j + 16] = static_cast<float>(b) * d + m;
  }
}

void block_q8_0(Bytes p, float* y) {
  const float d = half_at(p);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(static_cast<int8_t>(p[2 + j])) * d;
}

// The six-bit scale and minimum of sub-block j (of 8), packed in 12 bytes.
std::pair<int, int> scale_and_min(Bytes s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)};
}

// d, dmin, 12 bytes of scales, then (Q5_K) 32 bytes of fifth bits, then 128 bytes of nibbles. Each
// 32 bytes of nibbles hold two sub-blocks of 32 values: low halves, high halves.
void block_q4_or_q5_k(Bytes p, bool five, float* y) {
  const float d = half_at(p);
  const float dmin = half_at(p + 2);
  const Bytes scales = p + 4;
  const Bytes high = p + 16;
  const Bytes low = five ? p + 48 : p + 16;
  for (int j = 0; j < 8; ++j) {
    const auto [scale, minimum] = scale_and_min(scales, j);
    const float step = d * static_cast<float>(scale);
    const float offset = dmin * static_cast<float>(minimum);
    for (int l = 0; l < 32; ++l) {
      const int byte = low[32 * (j / 2) + l];
      int code = j % 2 == 0 ? byte & 15 : byte >> 4;
      if (five) code |= ((high[l] >> j) & 1) << 4;
      y[32 * j + l] = step * static_cast<float>(code) - offset;
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales (one per 16 values), d.
void block_q6_k(Bytes p, float* y) {
  const float d = half_at(p + 208);
  for (int half = 0; half < 2; ++half) {
    const Bytes low = p + 64 * half;
    const Bytes high = p + 128 + 32 * half;
    const Bytes scales = p + 192 + 8 * half;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int l = 0; l < 32; ++l) {
        const int byte = low[32 * (quarter % 2) + l];
        const int nibble = quarter < 2 ? byte & 15 : byte >> 4;
        const int code = (nibble | (((high[l] >> (2 * quarter)) & 3) << 4)) - 32;
        const auto scale = static_cast<int8_t>(scales[2 * quarter + l / 16]);
        y[128 * half + 32 * quarter + l] = d * static_cast<float>(scale) * static_cast<float>(code);
      }
    }
  }
}

void dequantize_block(GgmlType type, Bytes p, float* y) {
  switch (type) {
    case GgmlType::kQ4_0:
      return block_q4_0(p, y);
    case GgmlType::kQ4_1:
      return block_q4_1(p, y);
    case GgmlType::kQ5_0:
      return block_q5_0(p, y);
    case GgmlType::kQ5_1:
      return block_q5_1(p, y);
    case GgmlType::kQ8_0:
      return block_q8_0(p, y);
    case GgmlType::kQ4_K:
      return block_q4_or_q5_k(p, false, y);
    case GgmlType::kQ5_K:
      return block_q4_or_q5_k(p, true, y);
    case GgmlType::kQ6_K:
      return block_q6_k(p, y);
    case GgmlType::kF16:
      y[0] = half_at(p);
      return;
    case GgmlType::kBF16: {
      uint16_t bits;
      std::memcpy(&bits, p, sizeof bits);
      y[0] = float_from_bf16(bits);
      return;
    }
    case GgmlType::kF32:
      std::memcpy(y, p, sizeof(float));
      return;
  }
}

}  // namespace

std::optional<GgmlTypeInfo> find_ggml_type(uint32_t number) {
  for (const GgmlTypeInfo& info : kTypes)
    if (static_cast<uint32_t>(info.type) == number) return info;
  return std::nullopt;
}

std::string name_of_ggml_type(uint32_t number) {
  if (const auto info = find_ggml_type(number)) return std::string(info->name);
  for (const auto& [other, name] : kOtherNames)
    if (other == number) return name;
  return fmt::format("type {}", number);
}

std::string readable_ggml_types() {
  std::string out;
  for (const GgmlTypeInfo& info : kTypes) out.append(out.empty() ? "" : ", ").append(info.name);
  return out;
}

GgmlTypeInfo info_of(GgmlType type) {
  const auto info = find_ggml_type(static_cast<uint32_t>(type));
  expects(info.has_value());
  return *info;
}

int64_t row_bytes(GgmlType type, int64_t columns) {
  const GgmlTypeInfo info = info_of(type);
  expects(columns % info.block_values == 0);
  return columns / info.block_values * info.block_bytes;
}

void dequantize_rows(GgmlType type, int64_t rows, int64_t columns, const std::byte* packed,
                     float* out) {
  const GgmlTypeInfo info = info_of(type);
  expects(columns % info.block_values == 0);
  const int64_t blocks = rows * (columns / info.block_values);
  const auto* p = reinterpret_cast<Bytes>(packed);
  for (int64_t b = 0; b < blocks; ++b)
    dequantize_block(type, p + b * info.block_bytes, out + b * info.block_values);
}

}  // namespace spear
