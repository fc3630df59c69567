// The fused 4-bit linear with its compensator on packed panels (kernels/layout), and the small
// loops between such linears, once per instruction set as a table. Activations enter the products
// in 8 bits, or in two digits of 8 bits each, which run as two rows of the same product. Every loop
// works on the calling thread and allocates nothing; results of a token do not depend on which
// other tokens are in the call.
#pragma once

#include <stdint.h>

#include "spear/kernels/layout/packed_part.h"

namespace spear::cpu {

inline constexpr int kLargestTile = 12;  // tokens times digits that one pass over a panel serves

// How the inputs of a linear are rounded.
struct InputShape {
  int32_t k = 0;
  int32_t columns = 0;  // of a row of codes: a multiple of 64 (rank_columns)
  int32_t block = 0;    // columns that share a scale: a multiple of 64; >= columns: the whole row
  int32_t segment = 0;  // columns whose sum is kept, for weights with groups; 0: only the total
  int32_t digits = 1;   // 1: 8 bits; 2: x = s (high + low / 254)
};
constexpr int32_t pieces(int32_t columns, int32_t piece) {
  return piece == 0 ? 0 : (columns + piece - 1) / piece;
}

// Memory of quantized tokens.
struct QuantizedTokens {
  int8_t* codes = nullptr;       // [tokens * digits, columns], the digits of a token together
  float* scales = nullptr;       // [tokens * digits, blocks]
  int32_t* counts = nullptr;     // [tokens * digits, blocks]: sums of codes
  float* sums = nullptr;         // [tokens, segments]: sums of what the codes stand for
  float* totals = nullptr;       // [tokens]
  int16_t* ranks = nullptr;      // [tokens, rank_stride]: gated A x with B's scales, of each module
  float* rank_scales = nullptr;  // [tokens, modules]
  int32_t rank_stride = 0, modules = 0;
};

struct QuantizeArgs {
  InputShape shape;
  const float* x = nullptr;  // [m, x_stride]
  int64_t x_stride = 0;
  bool normalize = false;         // RMS norm first; it only moves the scale
  const float* weight = nullptr;  // [k] of the norm, or null: ones
  float eps = 0;
  QuantizedTokens to;
};

// What GateWeights' rows are padded to.
constexpr int32_t padded_gate(int32_t count) {
  return (count + 15) / 16 * 16;
}

// The gate of one compensator with floats laid out for axpy: null w1: no gate.
struct GateWeights {
  int32_t rank = 0, hidden = 0;  // rows of w2 and w1 are padded to multiples of 16
  const float* w1 = nullptr;     // [rank, hidden padded]
  const float* b1 = nullptr;     // [hidden padded]
  const float* w2 = nullptr;     // [hidden, rank padded]
  const float* b2 = nullptr;     // [rank padded]
};

// What finish_ranks does to one module's u of every token: the gate, then B's scales, then int16
// with one scale a token.
struct RankFinish {
  GateWeights gate;
  int32_t rank = 0;
  const float* b_scales = nullptr;  // [padded_gate(rank)], zeros beyond the rank
  const float* u = nullptr;         // [tokens, u_stride]
  int64_t u_stride = 0;
  int16_t* out = nullptr;  // [tokens, out_stride], the rank rounded up to even
  int64_t out_stride = 0;
  float* scales = nullptr;  // [tokens, scale_stride]
  int64_t scale_stride = 0;
};

enum class Epilogue : uint8_t { kStore, kAdd, kSiluMul };

struct PanelWork {
  PackedPart part;
  InputShape input;
  QuantizedTokens tokens;
  int32_t rank_offset[2] = {0, 0};  // of both halves' modules in a token's ranks
  int32_t module[2] = {0, 0};       // and in its rank_scales
  Epilogue epilogue = Epilogue::kStore;
  float* y = nullptr;  // [tokens, y_stride], column 0 is the part's first output
  int64_t y_stride = 0;
  // Called once, after the first sums and before ranks are read; null: ranks are there already.
  void (*ready)(void* context) = nullptr;
  void* context = nullptr;
};

struct PackedKernels {
  const char* name;  // "w4.avx512"
  int32_t step;      // groups and blocks must be multiples of this many columns

  // Tokens [begin, end): x row i becomes row i of `to`.
  void (*quantize)(const QuantizeArgs&, int64_t begin, int64_t end);
  // u[i] = A x of one token for the rows of a packed slice (pack_ranks).
  void (*project)(const InputShape&, const QuantizedTokens&, int64_t token, const uint8_t* packed,
                  int64_t rows, float* u);
  // The same for many tokens, with A as panels of 16 rows (rank_panel_bytes; rows that nobody wrote
  // hold 128): widen_ranks puts the rows of a slice at row `first`; then tokens [begin, end), u at
  // u + token * u_stride.
  void (*widen_ranks)(const uint8_t* packed, int64_t rows, int64_t columns, int64_t first,
                      uint8_t* panels);
  void (*project_tokens)(const InputShape&, const QuantizedTokens&, int64_t begin, int64_t end,
                         const uint8_t* panels, const float* a_scales, int64_t rows, float* u,
                         int64_t u_stride);
  void (*finish_ranks)(const RankFinish&, int64_t begin, int64_t end);
  // Panels [first, first + count) from `stream` on, for tokens [begin, end).
  void (*panels)(const PanelWork&, const uint8_t* stream, int64_t first, int64_t count,
                 int64_t begin, int64_t end);
  // `rounds` of independent 8-bit dot products in registers: the ceiling of every product here.
  // Returns the multiply-adds done.
  double (*dot_chain)(int64_t rounds, int32_t* sink);
  // Reads bytes as the panels are read; returns something that depends on all of them.
  uint64_t (*read_through)(const uint8_t* bytes, int64_t count);
};

// Bytes of widen_ranks' panels.
constexpr int64_t rank_panel_bytes(int64_t rows, int64_t columns) {
  return (rows + 15) / 16 * 16 * columns;
}

const PackedKernels& packed_plain();
const PackedKernels& packed_avx2();
const PackedKernels& packed_avx512();

}  // namespace spear::cpu
