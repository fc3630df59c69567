#include "spear/kernels/attention.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/attention_tiles.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::cpu {
namespace {

// One tile of work: some tokens of one sequence, all heads of one kv-head.
struct Item {
  int64_t sequence = 0, kv_head = 0, token = 0, tokens = 0;
};

HeadRows paged_rows(const AttentionArgs& a, const AttentionSequence& s, const void* data,
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

// The longest first, so that the threads finish together.
std::vector<Item> cut_into_items(const AttentionArgs& a) {
  const int64_t tile = tokens_per_tile(a.heads / a.kv_heads);
  std::vector<Item> items;
  for (int64_t i = 0; i < a.sequence_count; ++i)
    for (int64_t token = 0; token < a.sequences[i].rows; token += tile)
      for (int64_t h = 0; h < a.kv_heads; ++h)
        items.push_back({i, h, token, std::min(tile, a.sequences[i].rows - token)});
  std::sort(items.begin(), items.end(), [&](const Item& x, const Item& y) {
    const auto work = [&](const Item& item) {
      return (a.sequences[item.sequence].context + item.token + item.tokens) * item.tokens;
    };
    return work(x) > work(y);
  });
  return items;
}

void run_item(const AttentionArgs& a, const Item& item, const SimdLoops& loops, float* scratch) {
  const AttentionSequence& s = a.sequences[item.sequence];
  const int64_t group = a.heads / a.kv_heads;
  const int64_t at = ((s.first_row + item.token) * a.heads + item.kv_head * group) * a.head_dim;
  loops.attention({.tokens = item.tokens,
                   .group = group,
                   .head_dim = a.head_dim,
                   .first_keys = s.context + item.token + 1,
                   .q = a.q + at,
                   .token_stride = a.heads * a.head_dim,
                   .keys = paged_rows(a, s, a.cache.keys, a.cache.key_scales, item.kv_head),
                   .values = paged_rows(a, s, a.cache.values, a.cache.value_scales, item.kv_head),
                   .scale = a.scale,
                   .y = a.y + at,
                   .scratch = scratch});
}

}  // namespace

void attention(const AttentionArgs& a, ThreadPool& pool, const SimdLoops& loops) {
  const std::vector<Item> items = cut_into_items(a);
  const int64_t group = a.heads / a.kv_heads;
  const int64_t floats = loops.attention_scratch(tokens_per_tile(group) * group, a.head_dim);
  run_one_by_one(pool, static_cast<int64_t>(items.size()), floats,
                 [&](int64_t i, float* scratch) { run_item(a, items[i], loops, scratch); });
}

void attention(const AttentionArgs& args, ThreadPool& pool) {
  attention(args, pool, simd_loops());
}

void kv_append(const KvAppendArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  const int64_t width = args.kv_heads * args.head_dim;
  const int64_t page_size = args.cache.page_size;
  const int64_t grain = std::max<int64_t>(1, 16384 / width);
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& s = args.sequences[i];
    pool.parallel_for(s.rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t position = s.context + row;
        const int64_t slot = s.pages[position / page_size] * page_size + position % page_size;
        loops.rope_append({.kv_heads = args.kv_heads,
                           .head_dim = args.head_dim,
                           // not written to: there is no table to rotate by
                           .k = const_cast<float*>(args.k) + (s.first_row + row) * width,
                           .v = args.v + (s.first_row + row) * width,
                           .kv_stride = width,
                           .slots = &slot,
                           .cache = args.cache},
                          0, 1);
      }
    });
  }
}

void kv_append(const KvAppendArgs& args, ThreadPool& pool) {
  kv_append(args, pool, simd_loops());
}

}  // namespace spear::cpu
