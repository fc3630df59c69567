// Reads single elements of the canonical layout: slow, obvious, for the plain twins and for small
// parts of fast kernels. Stateless: any thread.
#pragma once

#include "spear/kernels/w4_linear.h"

namespace spear::ref {

// The unsigned code of element j of a row of packed codes.
inline uint32_t code_at(const uint8_t* row, int32_t bits, int64_t j) {
  const int64_t first = j * bits;
  uint32_t window = row[first / 8];
  if (first % 8 + bits > 8) window |= static_cast<uint32_t>(row[first / 8 + 1]) << 8;
  return window >> (first % 8) & ((1u << bits) - 1u);
}

inline float zero_at(const QuantizedView& w, int64_t row, int64_t group) {
  const int64_t groups = w.groups();
  switch (w.zero_kind) {
    case ZeroKind::kNone:
      return static_cast<float>(1 << (w.bits - 1));
    case ZeroKind::kU4: {
      const int64_t flat = row * groups + group;  // nibbles run on across rows
      const uint8_t pair = static_cast<const uint8_t*>(w.zeros)[flat / 2];
      return static_cast<float>(pair >> (flat % 2 * 4) & 15);
    }
    case ZeroKind::kU8:
      return static_cast<float>(static_cast<const uint8_t*>(w.zeros)[row * groups + group]) / 16.0f;
    case ZeroKind::kF16:
      return float_from_f16(static_cast<const uint16_t*>(w.zeros)[row * groups + group]);
  }
  return 0;
}

inline float scale_at(const QuantizedView& w, int64_t row, int64_t group) {
  return float_from_f16(w.scales[row * w.groups() + group]);
}

// Element j of row `i` of a factor whose rows hold `columns` elements.
inline float factor_at(const CompensatorView& ec, const void* factor, const uint16_t* scales,
                       int64_t i, int64_t j, int64_t columns) {
  if (ec.factor_bits == 16)
    return float_from_f16(static_cast<const uint16_t*>(factor)[i * columns + j]);
  int code = 0;
  if (ec.factor_bits == 8) {
    code = static_cast<const int8_t*>(factor)[i * columns + j];
  } else {
    const uint8_t pair = static_cast<const uint8_t*>(factor)[i * ((columns + 1) / 2) + j / 2];
    code = pair >> (j % 2 * 4) & 15;
    if (code > 7) code -= 16;
  }
  return static_cast<float>(code) * float_from_f16(scales[i]);
}

}  // namespace spear::ref
