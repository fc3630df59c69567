// What stands between the products of a fused decode step (rows.h): the first kernel of a step
// (embedding rows, rotation, RoPE's table), attention of one query row a sequence over the paged
// cache, and the last one (rotation back, final norm). Each also leaves its share of the next
// product's u. Device pointers; queued on a stream; nothing waits, results do not depend on
// scheduling.
#pragma once

#include <cstdint>

#include "spear/kernels/attention.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/gpu/rows.h"
#include "spear/kernels/w4_linear.h"

namespace spear::gpu {

// The rows of a step as kernels see them.
struct StepTables {
  const int32_t* tokens = nullptr;      // [m]
  const int32_t* contexts = nullptr;    // [m] tokens before the row: also its position
  const int32_t* page_begin = nullptr;  // [m] where the row's block table begins in `pages`
  const int32_t* pages = nullptr;
};

struct BeginArgs {
  int32_t m = 0;
  StepTables tables;
  QuantizedView embedding;  // canonical layout, device pointers
  RotationView rotation;    // device pointers; n = 0: none
  int32_t head_dim = 0;
  const float* inverse_frequencies = nullptr;  // [head_dim / 2]
  float* x = nullptr;                          // [m, hidden]
  float* angles = nullptr;                     // [m, head_dim / 2, 2] cosine, sine
  LowRankOutput next = {};                     // one part a token
};
void begin_step(const BeginArgs& args, Stream stream);

struct DecodeAttentionArgs {
  int32_t m = 0, heads = 0, kv_heads = 0, head_dim = 0;
  StepTables tables;
  const float* angles = nullptr;  // as begin_step() left them
  const float* qkv = nullptr;     // [m, (heads + 2 kv_heads) head_dim], before RoPE
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;
  float eps = 0;
  KvLayerView cache;
  bool append = true;       // false: the rows' own keys and values stand in the cache already
  uint16_t* y = nullptr;    // f16 [m, heads, head_dim]
  int64_t y_stride = 0;     // elements between rows of y
  int32_t splits = 0;       // blocks that share a context, 1 to 8; 0: as rows and heads suggest
  LowRankOutput next = {};  // one part a KV head
};
// Whether an instance exists: head_dim 64 or 128, at most 8 query heads a KV head.
bool decode_attention_supports(int32_t heads, int32_t kv_heads, int32_t head_dim);
void decode_attention(const DecodeAttentionArgs& args, int32_t multiprocessors, Stream stream);

struct FinishArgs {
  int32_t rows = 0, hidden = 0;
  const int32_t* row_of = nullptr;  // [rows] of x
  const float* x = nullptr;         // [m, hidden]
  RotationView rotation;            // un-rotated first; n = 0: none
  const float* weight = nullptr;    // [hidden] or null
  float eps = 0;
  float* normed = nullptr;     // [rows, hidden] or null
  uint16_t* half_y = nullptr;  // f16 [rows, hidden] or null
};
void finish_step(const FinishArgs& args, Stream stream);

}  // namespace spear::gpu
