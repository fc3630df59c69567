// Contract of the quantized linear with its error compensator (EC), the operation spear exists for:
//   y = s ⊙ (q·x − z·Σx) + bias + B·(γ(u) ⊙ u),   u = A·x,   γ(u) = 1 + tanh(W2·relu(W1·u + b1) +
//   b2)
// per output row and, with groups, per group of consecutive inputs. The paper's α is folded into
// B's scales. Views point to the canonical layout, which artifacts store; fast kernels pack it into
// their own (kernels/layout).
#pragma once

#include <cstddef>
#include <cstdint>

#include "spear/base/dtype.h"

namespace spear {

class HostBuffer;
class ThreadPool;
struct GemmKernel;

enum class ZeroKind : uint8_t {
  kNone,  // symmetric: the zero point is 2^(bits-1) for every group and not stored
  kU4,    // integer zero points 0..15, two a byte (low nibble first): entry i of the flat [n · k /
          // group] at byte i / 2
  kU8,    // real zero points in steps of 1/16: value = byte / 16; 8-bit weights use kF16
  kF16,   // real zero points
};

struct QuantizedView {
  int32_t n = 0, k = 0;  // output rows, input columns
  int32_t bits = 4;      // 2, 3, 4, 6, 8 (16: codes are BF16 values, no scales)
  int32_t group = 0;     // inputs that share a scale; k: per channel. Divides k.
  ZeroKind zero_kind = ZeroKind::kU4;
  const uint8_t* codes =
      nullptr;  // [n, row_bytes]: unsigned codes, little-endian bit stream, rows padded to a byte
  const uint16_t* scales = nullptr;  // [n, k / group] f16
  const void* zeros = nullptr;       // [n, k / group] by zero_kind

  [[nodiscard]] int32_t groups() const { return group == 0 ? 1 : k / group; }
  [[nodiscard]] size_t row_bytes() const {
    return (static_cast<size_t>(k) * static_cast<size_t>(bits) + 7) / 8;
  }
  [[nodiscard]] size_t code_bytes() const { return static_cast<size_t>(n) * row_bytes(); }
  [[nodiscard]] size_t scale_count() const {
    return bits == 16 ? 0 : static_cast<size_t>(n) * static_cast<size_t>(groups());
  }
  [[nodiscard]] size_t zero_bytes() const {
    if (bits == 16) return 0;
    switch (zero_kind) {
      case ZeroKind::kNone:
        return 0;
      case ZeroKind::kU4:
        return (scale_count() + 1) / 2;
      case ZeroKind::kU8:
        return scale_count();
      case ZeroKind::kF16:
        return scale_count() * 2;
    }
    return 0;
  }
};

// Low-rank factors are stored by rank row: A [rank, k] and B transposed [rank, n], so that both
// stream the same way. 8 bits: int8; 4 bits: two's complement nibbles, low first, rows padded to a
// byte; 16 bits: f16, no scales.
struct CompensatorView {
  int32_t rank = 0;                    // 0: no compensator
  int32_t factor_bits = 8;             // 4, 8, 16
  const void* a = nullptr;             // [rank, k]
  const void* b = nullptr;             // [rank, n]
  const uint16_t* a_scales = nullptr;  // [rank] f16
  const uint16_t* b_scales = nullptr;  // [rank] f16
  int32_t gate_hidden = 0;             // 0: no gate, γ ≡ 1
  const uint16_t* w1 = nullptr;        // [gate_hidden, rank] f16
  const uint16_t* b1 = nullptr;        // [gate_hidden] f16
  const uint16_t* w2 = nullptr;        // [rank, gate_hidden] f16
  const uint16_t* b2 = nullptr;        // [rank] f16
};

struct W4LinearArgs {
  int64_t m = 0;             // tokens
  const float* x = nullptr;  // [m, k]
  QuantizedView w;
  CompensatorView ec;
  const float* bias = nullptr;  // [n] or null
  float* y = nullptr;           // [m, n]
};

// Identifies the case for the choice of a kernel; trivially copyable.
struct W4Problem {
  int32_t n = 0, k = 0, bits = 4, group = 0;
  ZeroKind zero_kind = ZeroKind::kU4;
  int32_t rank = 0, factor_bits = 8, gate_hidden = 0;
};

// Expands rows [row_begin, row_end) to float, [row_end - row_begin, k]. Exact: (code − zero) ·
// scale in float.
void dequantize_rows(const QuantizedView& w, int64_t row_begin, int64_t row_end, float* out);
void dequantize_rows_bf16(const QuantizedView& w, int64_t row_begin, int64_t row_end,
                          uint16_t* out);

namespace ref {
// The definition of right: double accumulation, any shape, any layout of the views above.
void w4_linear(const W4LinearArgs& args);
}  // namespace ref

namespace cpu {
// Reads the canonical layout in place. Few tokens: dot products with the packed codes in FP32,
// memory-bound. More: tiles of rows are dequantized beside the cache and multiplied by `gemm`, in
// BF16, or in FP32 when `exact`. `workspace` grows as needed and is kept by the caller between
// calls; one call at a time may use it.
void w4_linear(const W4LinearArgs& args, bool exact, HostBuffer& workspace, ThreadPool& pool,
               const GemmKernel& gemm);
}  // namespace cpu

}  // namespace spear
