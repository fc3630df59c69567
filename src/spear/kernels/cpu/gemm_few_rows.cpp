#include "spear/kernels/cpu/gemm_few_rows.h"

#include <algorithm>

#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"

namespace spear::cpu {

bool has_few_rows(const GemmArgs& g) {
  return g.m <= kFewTokens && !g.transpose_a && g.transpose_b && g.k > 0 && g.a_type == g.b_type &&
         (g.a_type == DType::kF32 || g.a_type == DType::kBF16);
}

void run_few_rows(const GemmArgs& g, ThreadPool* pool, const SimdLoops& loops) {
  HostBuffer rows(static_cast<size_t>(g.m * g.k) * sizeof(float));
  auto* x = rows.as<float>();
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t p = 0; p < g.k; ++p)
      x[i * g.k + p] = g.a_type == DType::kF32
                           ? static_cast<const float*>(g.a)[i * g.lda + p]
                           : float_from_bf16(static_cast<const uint16_t*>(g.a)[i * g.lda + p]);
  const DenseRows dense{.m = g.m,
                        .n = g.n,
                        .k = g.k,
                        .x = x,
                        .w = g.b,
                        .stride = g.ldb,
                        .bf16 = g.b_type == DType::kBF16,
                        .alpha = g.alpha,
                        .beta = g.beta,
                        .y = g.c,
                        .y_stride = g.ldc};
  const auto body = [&](int64_t begin, int64_t end) { loops.dense_rows(dense, begin, end); };
  if (pool == nullptr) return body(0, g.n);
  pool->parallel_for(g.n, std::max<int64_t>(16, 65536 / g.k), body);
}

}  // namespace spear::cpu
