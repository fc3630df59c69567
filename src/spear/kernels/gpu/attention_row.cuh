// A head's vector on its way into attention: norm and RoPE by one warp, and the stored form of a
// row of the cache. Device code only.
#pragma once

#include <cuda_fp16.h>

#include "spear/kernels/gpu/ptx.cuh"
#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {

// One warp: RMS norm (optional) and RoPE of a head's vector. `angles`: cosine and sine of each
// pair.
template <int kDim>
__device__ void prepare_head(const float* from, const float* norm, float eps, const float* angles,
                             float scale, float* to, int lane) {
  float low[kDim / 64];
  float high[kDim / 64];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kDim / 64; ++i) {
    low[i] = load_cg(from + lane + 32 * i);
    high[i] = load_cg(from + kDim / 2 + lane + 32 * i);
    squares += low[i] * low[i] + high[i] * high[i];
  }
  float inverse = 1.0f;
  if (norm != nullptr) inverse = rsqrtf(warp_reduce(squares, Plus{}) / kDim + eps);
#pragma unroll
  for (int i = 0; i < kDim / 64; ++i) {
    const int j = lane + 32 * i;
    const float a = low[i] * inverse * (norm == nullptr ? 1.0f : norm[j]);
    const float b = high[i] * inverse * (norm == nullptr ? 1.0f : norm[j + kDim / 2]);
    const float cosine = load_cg(angles + 2 * j);
    const float sine = load_cg(angles + 2 * j + 1);
    to[j] = (a * cosine - b * sine) * scale;
    to[j + kDim / 2] = (b * cosine + a * sine) * scale;
  }
}

// One warp: a row of the cache from shared memory, which is left as the cache will give it back.
// `to` null: nothing is stored.
template <int kDim, class T>
__device__ void store_row(float* row, T* to, float* scale, int lane) {
  if constexpr (sizeof(T) == 1) {
    float largest = 0;
    for (int j = lane; j < kDim; j += 32) largest = fmaxf(largest, fabsf(row[j]));
    largest = warp_reduce(largest, Largest{});
    const float step = largest / 127.0f;
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    if (lane == 0 && to != nullptr) *scale = step;
    for (int j = lane; j < kDim; j += 32) {
      const float code = rintf(row[j] * inverse);
      if (to != nullptr) to[j] = static_cast<int8_t>(code);
      row[j] = code * step;
    }
  } else if constexpr (sizeof(T) == 2) {
    for (int j = lane; j < kDim; j += 32) {
      const half stored = __float2half_rn(row[j]);
      if (to != nullptr) to[j] = stored;
      row[j] = __half2float(stored);
    }
  } else {
    for (int j = lane; j < kDim; j += 32)
      if (to != nullptr) to[j] = row[j];
  }
}

}  // namespace spear::gpu
