// Attention of a compiled step: how it is cut into items that threads take one by one, and one item.
#pragma once

#include <span>
#include <vector>

#include "spear/backend/cpu/program_memory.h"
#include "spear/kernels/attention.h"

namespace spear {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t stride = 0;   // between tokens
  float* qy = nullptr;  // [m, stride]: queries at column 0, replaced by attention's output
  KvLayerView cache;
};

// The longest first, so that the threads finish together.
void cut_attention(std::span<const AttentionSequence> sequences, int64_t group, int64_t kv_heads,
                   std::vector<AttentionItem>& items);
int64_t attention_scratch_floats(const cpu::SimdLoops& loops, int64_t group, int64_t head_dim);
void run_attention(const cpu::SimdLoops& loops, const AttentionShape& shape,
                   const AttentionItem& item, float* scratch);

}  // namespace spear
