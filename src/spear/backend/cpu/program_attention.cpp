#include "spear/backend/cpu/program_attention.h"

#include <algorithm>
#include <cmath>

#include "spear/kernels/cpu/attention_tiles.h"

namespace spear {
namespace {

cpu::HeadRows head_rows(const AttentionShape& a, const AttentionSequence& s, const void* data,
                        const float* scales, int64_t kv_head) {
  const KvLayerView& c = a.cache;
  const int64_t first = kv_head * c.page_size;
  return {.base = static_cast<const std::byte*>(data) +
                  static_cast<size_t>(first * a.head_dim) * size_of(c.type),
          .row_stride = a.head_dim,
          .pages = s.pages,
          .page_size = c.page_size,
          .page_stride = a.kv_heads * c.page_size * a.head_dim,
          .type = c.type,
          .scales = scales == nullptr ? nullptr : scales + first,
          .scale_stride = a.kv_heads * c.page_size};
}

}  // namespace

void cut_attention(std::span<const AttentionSequence> sequences, int64_t group, int64_t kv_heads,
                   std::vector<AttentionItem>& items) {
  const int64_t tile = cpu::tokens_per_tile(group);
  items.clear();
  for (const AttentionSequence& s : sequences)
    for (int64_t token = 0; token < s.rows; token += tile)
      for (int64_t h = 0; h < kv_heads; ++h)
        items.push_back({&s, h, token, std::min(tile, s.rows - token)});
  const auto work = [](const AttentionItem& item) {
    return (item.sequence->context + item.token + item.tokens) * item.tokens;
  };
  std::sort(items.begin(), items.end(), [&](const AttentionItem& a, const AttentionItem& b) {
    return work(a) > work(b);
  });
}

int64_t attention_scratch_floats(const cpu::SimdLoops& loops, int64_t group, int64_t head_dim) {
  return loops.attention_scratch(cpu::tokens_per_tile(group) * group, head_dim);
}

void run_attention(const cpu::SimdLoops& loops, const AttentionShape& a, const AttentionItem& item,
                   float* scratch) {
  const AttentionSequence& s = *item.sequence;
  const int64_t group = a.heads / a.kv_heads;
  float* at = a.qy + (s.first_row + item.token) * a.stride + item.kv_head * group * a.head_dim;
  loops.attention({.tokens = item.tokens,
                   .group = group,
                   .head_dim = a.head_dim,
                   .first_keys = s.context + item.token + 1,
                   .q = at,
                   .token_stride = a.stride,
                   .keys = head_rows(a, s, a.cache.keys, a.cache.key_scales, item.kv_head),
                   .values = head_rows(a, s, a.cache.values, a.cache.value_scales, item.kv_head),
                   .scale = 1.0f / std::sqrt(static_cast<float>(a.head_dim)),
                   .y = at,
                   .scratch = scratch});
}

}  // namespace spear
