// The loops that are compiled once per instruction set, as a table. A loop works on a range of rows
// (or elements), on the calling thread, and allocates nothing; threads and memory are the business
// of kernels/cpu/*.cpp.
#pragma once

#include <stdint.h>

#include "spear/kernels/attention.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/loss.h"
#include "spear/kernels/reverse_ops.h"
#include "spear/kernels/w4_linear.h"

namespace spear::cpu {

// The keys or values of one kv-head: row t of `base`, or of its page.
struct HeadRows {
  const void* base = nullptr;
  int64_t row_stride = 0;          // elements
  const int32_t* pages = nullptr;  // null: one run of rows
  int64_t page_size = 0;
  int64_t page_stride = 0;  // elements
  DType type = DType::kF32;
  const float* scales = nullptr;  // INT8: [page_size] of the head in page 0
  int64_t scale_stride = 0;       // between pages
};

// Query rows of consecutive tokens and of all heads that share a kv-head: row r is token r / group,
// head r % group.
struct AttentionTile {
  int64_t tokens = 0, group = 1, head_dim = 0;
  int64_t first_keys = 0;    // keys that the first token sees; one more for each later one
  const float* q = nullptr;  // of the first token and head; heads lie head_dim apart
  int64_t token_stride = 0;  // of q and y
  HeadRows keys, values;
  float scale = 0;
  float* y = nullptr;
  float* log_sum = nullptr;  // or null: [head * log_sum_stride + token]
  int64_t log_sum_stride = 0;
  float* scratch = nullptr;  // attention_scratch(...) floats
};

// Few query rows of one sequence and kv-head against keys [first, first + count).
struct AttentionChunk {
  int64_t rows = 0, group = 1, head_dim = 0;
  int64_t context = 0;  // row r sees keys 0 .. context + r
  int64_t first = 0, count = 0;
  const float* q = nullptr;  // of the first row and head; heads lie head_dim apart
  int64_t token_stride = 0;
  HeadRows keys, values;
  float scale = 0;
  const void* next = nullptr;  // keys that this thread will probably read next
  float* partial = nullptr;    // [rows · group, partial_floats]
  float* scratch = nullptr;    // attention_chunk_floats(rows · group, ...) floats
};
inline constexpr int64_t kMostChunkKeys = 256;

// Chunks of the same rows become y.
struct AttentionMerge {
  int64_t rows = 0, group = 1, head_dim = 0, chunks = 0;
  float* partials = nullptr;  // [chunks, rows · group, partial_floats]; chunk 0 is overwritten
  int64_t chunk_stride = 0;
  float* y = nullptr;  // of the first row and head
  int64_t token_stride = 0;
};

// One kv-head of one sequence, for the reverse of dense attention.
struct AttentionBackwardHead {
  int64_t length = 0, group = 1, head_dim = 0;
  const float* q =
      nullptr;  // [length, group, head_dim] with q_stride between tokens; so are y, dy, dq
  const float* y = nullptr;
  const float* dy = nullptr;
  float* dq = nullptr;
  int64_t q_stride = 0;
  const float* k = nullptr;  // [length, head_dim] with kv_stride between tokens; so are v, dk, dv
  const float* v = nullptr;
  float* dk = nullptr;
  float* dv = nullptr;
  int64_t kv_stride = 0;
  float scale = 0;
  const float* log_sum = nullptr;  // [group, length]
  float* scratch = nullptr;        // attention_backward_scratch(...) floats
};

// x of a few tokens against rows of packed codes: y[i, row] for row in [begin, end).
struct QuantizedRows {
  QuantizedView w;
  int64_t m = 0;                  // 1 .. kFewTokens
  const float* x = nullptr;       // [m, k]
  const float* packed = nullptr;  // [m, packed_columns]: x in the order of pack_tokens
  const float* sums = nullptr;    // [m, groups]: Σ x of each group
  float* y = nullptr;             // [m, n]
};
inline constexpr int64_t kFewTokens = 4;

// y[i, row] = alpha x[i] · w[row] + beta y[i, row] for row in [begin, end).
struct DenseRows {
  int64_t m = 0, n = 0, k = 0;  // m: 1 .. kFewTokens
  const float* x = nullptr;     // [m, k]
  const void* w = nullptr;      // [n, k], float or bf16
  int64_t stride = 0;           // elements between rows of w
  bool bf16 = false;
  float alpha = 1, beta = 0;
  float* y = nullptr;  // [m, n]
  int64_t y_stride = 0;
};

struct SimdLoops {
  const char* name;
  int64_t width;  // floats a register

  void (*rms_norm)(const RmsNormArgs&, int64_t begin, int64_t end);
  // table: [2, head_dim / 2] floats for the cosines and sines of one token
  void (*rope)(const RopeArgs&, int64_t begin, int64_t end, float* table);
  void (*silu_mul)(const SiluMulArgs&, int64_t begin, int64_t end);
  // scratch: n floats
  void (*rotate)(const RotateArgs&, int64_t begin, int64_t end, float* scratch);

  void (*rms_norm_backward)(const RmsNormBackwardArgs&, int64_t begin, int64_t end, float* dweight);
  void (*silu_mul_backward)(const SiluMulBackwardArgs&, int64_t begin, int64_t end);

  void (*log_sum_exp)(const LogSumExpArgs&, int64_t begin, int64_t end);
  void (*kl_divergence)(const KlArgs&, int64_t begin, int64_t end);

  int64_t (*attention_scratch)(int64_t rows, int64_t head_dim);
  void (*attention)(const AttentionTile&);
  int64_t (*partial_floats)(int64_t head_dim);
  int64_t (*attention_chunk_scratch)(int64_t queries, int64_t head_dim);
  void (*attention_chunk)(const AttentionChunk&);
  void (*merge_chunks)(const AttentionMerge&);
  // table [m, head_dim]: cosines, then sines, of the angles of rows [begin, end)
  void (*rope_table)(int64_t head_dim, const float* inverse_frequencies, const int32_t* positions,
                     int64_t begin, int64_t end, float* table);
  void (*rope_append)(const RopeAppendArgs&, int64_t begin, int64_t end);
  int64_t (*attention_backward_scratch)(int64_t head_dim);
  void (*attention_backward)(const AttentionBackwardHead&);

  void (*to_bf16)(const float* x, uint16_t* y, int64_t count);
  void (*dequantize)(const QuantizedView&, int64_t begin, int64_t end, float* out);
  // scratch: k floats
  void (*dequantize_bf16)(const QuantizedView&, int64_t begin, int64_t end, uint16_t* out,
                          float* scratch);
  int64_t (*packed_columns)(const QuantizedView&);
  void (*pack_tokens)(const QuantizedView&, int64_t m, const float* x, float* packed);
  void (*quantized_rows)(const QuantizedRows&, int64_t begin, int64_t end);
  void (*dense_rows)(const DenseRows&, int64_t begin, int64_t end);
  // Row r of A or B (with its scales; [rank, columns]), columns [begin, end), as floats.
  void (*expand_factor_row)(const CompensatorView&, const void* factor, const uint16_t* scales,
                            int64_t r, int64_t columns, int64_t begin, int64_t end, float* out);
  float (*dot)(const float* x, const float* y, int64_t count);
  void (*add_scaled)(float factor, const float* x, float* y, int64_t count);  // y += factor · x
  // `steps` rounds of independent multiply-adds in registers: the ceiling of every product. Returns
  // the floating-point operations done.
  double (*fma_chain)(int64_t steps, float* sink);
};

const SimdLoops& simd_baseline();
const SimdLoops& simd_avx2();
const SimdLoops& simd_avx512();

}  // namespace spear::cpu
