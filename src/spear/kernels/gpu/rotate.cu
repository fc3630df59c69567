// The structured rotation of rows, one block a row held in shared memory: signs, factor over p,
// Walsh-Hadamard over h, signs (kernels/decoder_ops.h). The inverse runs the transposes in the
// opposite order.
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;

__device__ void hadamard(float* row, const RotationView& r) {
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
__device__ void apply_factor(const float* in, float* out, const RotationView& r, bool transposed) {
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

__global__ void rotate_kernel(const RotateArgs a) {
  extern __shared__ float memory[];
  const RotationView& r = a.rotation;
  float* row = memory;
  float* other = memory + r.n;
  float* x = a.x + static_cast<int64_t>(blockIdx.x) * r.n;
  const float* first = a.inverse ? r.signs_out : r.signs_in;
  const float* last = a.inverse ? r.signs_in : r.signs_out;
  for (int64_t j = threadIdx.x; j < r.n; j += blockDim.x) row[j] = x[j] * first[j];
  __syncthreads();
  // F acts over p and H over h, so they commute; H is symmetric.
  hadamard(row, r);
  if (r.p > 1) {
    apply_factor(row, other, r, a.inverse);
    row = other;
  }
  const float scale = rsqrtf(static_cast<float>(r.h));
  for (int64_t j = threadIdx.x; j < r.n; j += blockDim.x) x[j] = row[j] * scale * last[j];
}

}  // namespace

void rotate(const RotateArgs& args, Stream stream) {
  if (args.m == 0) return;
  const size_t bytes = static_cast<size_t>(args.rotation.n) * 2 * sizeof(float);
  check(cudaFuncSetAttribute(rotate_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)));
  rotate_kernel<<<static_cast<unsigned>(args.m), kBlock, bytes, stream>>>(args);
  check_launch();
}

}  // namespace spear::gpu
