#include "spear/kernels/reverse_ops.h"

#include <algorithm>
#include <vector>

#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/attention_tiles.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::cpu {

// Each of a fixed number of stripes of rows sums its own part of dweight; the parts are added in
// order, so the result does not depend on the number of threads.
void rms_norm_backward(const RmsNormBackwardArgs& a, ThreadPool& pool, const SimdLoops& loops) {
  constexpr int64_t kStripes = 16;
  const int64_t stripe = (a.m + kStripes - 1) / kStripes;
  std::vector<float> parts(static_cast<size_t>(a.dweight != nullptr ? kStripes * a.n : 0), 0.0f);
  pool.parallel_for(kStripes, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      float* part = a.dweight != nullptr ? parts.data() + i * a.n : nullptr;
      loops.rms_norm_backward(a, std::min(a.m, i * stripe), std::min(a.m, (i + 1) * stripe), part);
    }
  });
  if (a.dweight == nullptr) return;
  for (int64_t j = 0; j < a.n; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < kStripes; ++i) sum += static_cast<double>(parts[i * a.n + j]);
    a.dweight[j] += static_cast<float>(sum);
  }
}

void silu_mul_backward(const SiluMulBackwardArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  pool.parallel_for(args.count, 16384,
                    [&](int64_t begin, int64_t end) { loops.silu_mul_backward(args, begin, end); });
}

void dense_attention(const DenseAttentionArgs& a, ThreadPool& pool, const SimdLoops& loops) {
  const int64_t group = a.heads / a.kv_heads;
  const int64_t d = a.head_dim;
  const int64_t tile = std::min(a.length, tokens_per_tile(group));
  const int64_t tiles = a.length == 0 ? 0 : (a.length + tile - 1) / tile;
  const int64_t heads = a.batch * a.kv_heads;
  run_one_by_one(pool, tiles * heads, loops.attention_scratch(tile * group, d),
                 [&](int64_t item, float* scratch) {
                   const int64_t token = (tiles - 1 - item / heads) * tile;  // the longest first
                   const int64_t sequence = item % heads / a.kv_heads;
                   const int64_t kv_head = item % a.kv_heads;
                   const int64_t q =
                       ((sequence * a.length + token) * a.heads + kv_head * group) * d;
                   const int64_t kv = (sequence * a.length * a.kv_heads + kv_head) * d;
                   float* log_sum =
                       a.log_sum == nullptr
                           ? nullptr
                           : a.log_sum + (sequence * a.heads + kv_head * group) * a.length + token;
                   loops.attention({.tokens = std::min(tile, a.length - token),
                                    .group = group,
                                    .head_dim = d,
                                    .first_keys = token + 1,
                                    .q = a.q + q,
                                    .token_stride = a.heads * d,
                                    .keys = {.base = a.k + kv, .row_stride = a.kv_heads * d},
                                    .values = {.base = a.v + kv, .row_stride = a.kv_heads * d},
                                    .scale = a.scale,
                                    .y = a.y + q,
                                    .log_sum = log_sum,
                                    .log_sum_stride = a.length,
                                    .scratch = scratch});
                 });
}

void dense_attention_backward(const DenseAttentionBackwardArgs& args, ThreadPool& pool,
                              const SimdLoops& loops) {
  const DenseAttentionArgs& a = args.forward;
  const int64_t group = a.heads / a.kv_heads;
  const int64_t d = a.head_dim;
  run_one_by_one(pool, a.batch * a.kv_heads, loops.attention_backward_scratch(d),
                 [&](int64_t item, float* scratch) {
                   const int64_t sequence = item / a.kv_heads;
                   const int64_t kv_head = item % a.kv_heads;
                   const int64_t q = (sequence * a.length * a.heads + kv_head * group) * d;
                   const int64_t kv = (sequence * a.length * a.kv_heads + kv_head) * d;
                   loops.attention_backward(
                       {.length = a.length,
                        .group = group,
                        .head_dim = d,
                        .q = a.q + q,
                        .y = a.y + q,
                        .dy = args.dy + q,
                        .dq = args.dq + q,
                        .q_stride = a.heads * d,
                        .k = a.k + kv,
                        .v = a.v + kv,
                        .dk = args.dk + kv,
                        .dv = args.dv + kv,
                        .kv_stride = a.kv_heads * d,
                        .scale = a.scale,
                        .log_sum = a.log_sum + (sequence * a.heads + kv_head * group) * a.length,
                        .scratch = scratch});
                 });
}

void rms_norm_backward(const RmsNormBackwardArgs& args, ThreadPool& pool) {
  rms_norm_backward(args, pool, simd_loops());
}
void silu_mul_backward(const SiluMulBackwardArgs& args, ThreadPool& pool) {
  silu_mul_backward(args, pool, simd_loops());
}
void dense_attention(const DenseAttentionArgs& args, ThreadPool& pool) {
  dense_attention(args, pool, simd_loops());
}
void dense_attention_backward(const DenseAttentionBackwardArgs& args, ThreadPool& pool) {
  dense_attention_backward(args, pool, simd_loops());
}

}  // namespace spear::cpu
