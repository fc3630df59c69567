#include "spear/kernels/loss.h"

#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::cpu {

void log_sum_exp(const LogSumExpArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  pool.parallel_for(args.m, 1,
                    [&](int64_t begin, int64_t end) { loops.log_sum_exp(args, begin, end); });
}

void kl_divergence(const KlArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  pool.parallel_for(args.m, 1,
                    [&](int64_t begin, int64_t end) { loops.kl_divergence(args, begin, end); });
}

void log_sum_exp(const LogSumExpArgs& args, ThreadPool& pool) {
  log_sum_exp(args, pool, simd_loops());
}
void kl_divergence(const KlArgs& args, ThreadPool& pool) {
  kl_divergence(args, pool, simd_loops());
}

}  // namespace spear::cpu
