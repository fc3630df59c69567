// A block's share of the next product's low-rank input: Σ_i weight[i] · out[i] · a[i, :] over the
// outputs it made. Device code only.
#pragma once

#include "spear/kernels/gpu/reduce.cuh"
#include "spear/kernels/gpu/rows.h"

namespace spear::gpu {

// `out`: [count] in shared memory; `a`: [count, width], shared or global; `share`: a float a
// thread of shared memory; `to`: [width]. kThreads is the block's size, a power of two. All threads
// call it; `share` may be reused after it.
template <int kThreads>
__device__ void project_outputs(const float* out, int count, const int8_t* a, const float* weight,
                                int width, float* share, float* to) {
  const int tid = static_cast<int>(threadIdx.x);
  for (int j0 = 0; j0 < width; j0 += kThreads) {
    const int columns = min(width, kThreads);
    const int j = tid % columns;
    const int slices = kThreads / columns;
    float sum = 0;
#pragma unroll 2
    for (int i = tid / columns; i < count; i += slices)
      sum += out[i] * (weight == nullptr ? 1.0f : weight[i]) *
             static_cast<float>(a[static_cast<int64_t>(i) * width + j0 + j]);
#pragma unroll 1
    for (int offset = columns; offset < 32; offset *= 2)
      sum += __shfl_xor_sync(kFullWarp, sum, offset);
    const int wide = max(columns, 32);
    if (columns >= 32)
      share[tid] = sum;
    else if (tid % 32 < columns)
      share[tid / 32 * columns + tid % 32] = sum;
    __syncthreads();
    if (tid < columns) {
      float total = 0;
#pragma unroll 4
      for (int s = 0; s < kThreads / wide; ++s) total += share[s * columns + tid];
      to[j0 + tid] = total;
    }
    __syncthreads();
  }
}

}  // namespace spear::gpu
