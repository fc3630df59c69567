#include "spear/kernels/attention.h"

#include <algorithm>
#include <atomic>

#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/attention_plan.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::cpu {

void attention(const AttentionArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  AttentionPlan plan(loops);
  plan.cut(args, pool.size());
  std::atomic<int64_t> next{0};
  std::atomic<int> workers{0};
  pool.parallel_for(std::min<int64_t>(plan.items(), pool.size()), 1, [&](int64_t, int64_t) {
    const int thread = workers++;
    for (int64_t i = next++; i < plan.items(); i = next++) plan.run(args, i, thread);
  });
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
