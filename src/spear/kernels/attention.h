// Contract of causal grouped-query attention over a paged KV cache, for prefill and decode alike.
// One sequence contributes `rows` query rows; its keys and values stand in pages listed in its
// block table and already contain these rows' own entries.
#pragma once

#include <cstdint>

#include "spear/base/dtype.h"

namespace spear {

class ThreadPool;

// One layer's keys and values, F32, F16 or INT8: [pages, kv_heads, page_size, head_dim]. With INT8
// each row (a token of a kv-head) is its codes times one scale, the row's largest magnitude / 127,
// and a page's codes of one head are interleaved so that integer instructions find pairs:
//   keys    [page_size / 16, head_dim / 2, 16, 2]   16 tokens, pairs of columns
//   values  [page_size / 2, head_dim, 2]            pairs of tokens
// so page_size is a multiple of 16, and head_dim is even and at most 512. Keys (and queries, as
// they are read) first go through a Walsh-Hadamard transform of each run of b columns over √b,
// where b is the largest power of two that divides head_dim: it leaves products as they are and
// spreads single large columns, which would take the scale for themselves.
struct KvLayerView {
  void* keys = nullptr;
  void* values = nullptr;
  int64_t page_size = 0;
  DType type = DType::kF32;
  float* key_scales = nullptr;    // INT8: [pages, kv_heads, page_size]
  float* value_scales = nullptr;  // INT8: [pages, kv_heads, page_size]
};

struct AttentionSequence {
  int64_t first_row = 0;  // of this sequence in q and y
  int64_t rows = 0;       // query rows: consecutive positions context .. context + rows - 1
  int64_t context = 0;    // tokens before these rows
  const int32_t* pages = nullptr;  // [ceil((context + rows) / page_size)] page numbers
};

struct AttentionArgs {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  const float* q = nullptr;  // [m, heads, head_dim], RoPE applied
  KvLayerView cache;
  const AttentionSequence* sequences = nullptr;  // [sequence_count]
  int64_t sequence_count = 0;
  float scale = 0;     // 1 / sqrt(head_dim)
  float* y = nullptr;  // [m, heads, head_dim]
};

// Stores rows of k and v (after RoPE) in the pages of their sequences, converted to the cache's
// type: F16 rounds to nearest even (beyond its range: infinity); INT8 codes are x · 127 / largest,
// rounded to nearest.
struct KvAppendArgs {
  int64_t kv_heads = 0, head_dim = 0;
  const float* k = nullptr;  // [m, kv_heads, head_dim]
  const float* v = nullptr;  // [m, kv_heads, head_dim]
  KvLayerView cache;
  const AttentionSequence* sequences = nullptr;
  int64_t sequence_count = 0;
};

// RoPE of queries and keys and the storing of keys and values, in one pass over a token's rows.
struct RopeAppendArgs {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float* q = nullptr;        // [m, heads, head_dim] with q_stride between tokens, in place
  float* k = nullptr;        // [m, kv_heads, head_dim] with kv_stride, in place
  const float* v = nullptr;  // [m, kv_heads, head_dim] with kv_stride
  int64_t q_stride = 0, kv_stride = 0;
  const float* table = nullptr;  // [m, head_dim]: cosines, then sines, of the token's angles; null:
                                 // q and k are left as they are
  const int64_t* slots = nullptr;  // [m] page · page_size + place in the page
  KvLayerView cache;
};

namespace ref {
void attention(const AttentionArgs& args);
void kv_append(const KvAppendArgs& args);
}  // namespace ref

namespace cpu {
void attention(const AttentionArgs& args, ThreadPool& pool);
void kv_append(const KvAppendArgs& args, ThreadPool& pool);
}  // namespace cpu

}  // namespace spear
