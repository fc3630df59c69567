#include "spear/kernels/decoder_ops.h"

#include <algorithm>

#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements a thread should have before it is worth waking

int64_t row_grain(int64_t row_elements) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_elements));
}

}  // namespace

void rms_norm(const RmsNormArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  pool.parallel_for(args.m, row_grain(args.n),
                    [&](int64_t begin, int64_t end) { loops.rms_norm(args, begin, end); });
}

void rope(const RopeArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  pool.parallel_for(args.m, row_grain(args.heads * args.head_dim), [&](int64_t begin, int64_t end) {
    HostBuffer table(static_cast<size_t>(args.head_dim) * sizeof(float));
    loops.rope(args, begin, end, table.as<float>());
  });
}

void silu_mul(const SiluMulArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  pool.parallel_for(args.count, kGrain,
                    [&](int64_t begin, int64_t end) { loops.silu_mul(args, begin, end); });
}

void rotate(const RotateArgs& args, ThreadPool& pool, const SimdLoops& loops) {
  const int64_t n = args.rotation.n;
  pool.parallel_for(args.m, row_grain(n), [&](int64_t begin, int64_t end) {
    HostBuffer scratch(static_cast<size_t>(n) * sizeof(float));
    loops.rotate(args, begin, end, scratch.as<float>());
  });
}

void rms_norm(const RmsNormArgs& args, ThreadPool& pool) {
  rms_norm(args, pool, simd_loops());
}
void rope(const RopeArgs& args, ThreadPool& pool) {
  rope(args, pool, simd_loops());
}
void silu_mul(const SiluMulArgs& args, ThreadPool& pool) {
  silu_mul(args, pool, simd_loops());
}
void rotate(const RotateArgs& args, ThreadPool& pool) {
  rotate(args, pool, simd_loops());
}

}  // namespace spear::cpu
