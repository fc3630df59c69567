// Contract of causal grouped-query attention over a paged KV cache, for prefill and decode alike.
// One sequence contributes `rows` query rows; its keys and values stand in pages listed in its
// block table and already contain these rows' own entries.
#pragma once

#include <cstdint>

namespace spear {

class ThreadPool;

struct KvLayerView {
  float* keys = nullptr;    // [pages, kv_heads, page_size, head_dim]
  float* values = nullptr;  // [pages, kv_heads, page_size, head_dim]
  int64_t page_size = 0;
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

// Copies rows of k and v (after RoPE) into the pages of their sequences.
struct KvAppendArgs {
  int64_t kv_heads = 0, head_dim = 0;
  const float* k = nullptr;  // [m, kv_heads, head_dim]
  const float* v = nullptr;  // [m, kv_heads, head_dim]
  KvLayerView cache;
  const AttentionSequence* sequences = nullptr;
  int64_t sequence_count = 0;
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
