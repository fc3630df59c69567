// The structured rotation of one row in shared memory by a whole block (kernels/decoder_ops.h).
// Device code only.
#pragma once

#include "spear/kernels/decoder_ops.h"

namespace spear::gpu {

__device__ inline void hadamard(float* row, const RotationView& r) {
  for (int64_t half = 1; half < r.h; half *= 2) {
    for (int64_t t = threadIdx.x; t < r.n / 2; t += blockDim.x) {
      const int64_t low = t / half * half * 2 + t % half;
      const float a = row[low];
      const float b = row[low + half];
      row[low] = a + b;
      row[low + half] = a - b;
    }
    __syncthreads();
  }
}

// out[i', j] = Σ_i in[i, j] F[i, i'], or F[i', i] when transposed
__device__ inline void apply_factor(const float* in, float* out, const RotationView& r,
                                    bool transposed) {
  for (int64_t e = threadIdx.x; e < r.n; e += blockDim.x) {
    const int64_t row = e / r.h;
    const int64_t column = e % r.h;
    float sum = 0;
    for (int64_t i = 0; i < r.p; ++i)
      sum += in[i * r.h + column] * r.factor[transposed ? row * r.p + i : i * r.p + row];
    out[e] = sum;
  }
  __syncthreads();
}

// Rotates `row`; `other` is as large. Returns whichever of the two holds the result. The caller
// has synchronized after filling `row`.
__device__ inline float* rotate_row(float* row, float* other, const RotationView& r, bool inverse) {
  const float* first = inverse ? r.signs_out : r.signs_in;
  const float* last = inverse ? r.signs_in : r.signs_out;
  for (int64_t j = threadIdx.x; j < r.n; j += blockDim.x) row[j] *= first[j];
  __syncthreads();
  // F acts over p and H over h, so they commute; H is symmetric.
  hadamard(row, r);
  if (r.p > 1) {
    apply_factor(row, other, r, inverse);
    row = other;
  }
  const float scale = rsqrtf(static_cast<float>(r.h));
  for (int64_t j = threadIdx.x; j < r.n; j += blockDim.x) row[j] *= scale * last[j];
  __syncthreads();
  return row;
}

}  // namespace spear::gpu
