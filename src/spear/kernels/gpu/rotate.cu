// The structured rotation of rows, one block a row held in shared memory: signs, factor over p,
// Walsh-Hadamard over h, signs (kernels/decoder_ops.h). The inverse runs the transposes in the
// opposite order.
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"
#include "spear/kernels/gpu/rotation.cuh"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;

__global__ void rotate_kernel(const RotateArgs a) {
  extern __shared__ float memory[];
  const int64_t n = a.rotation.n;
  float* x = a.x + static_cast<int64_t>(blockIdx.x) * n;
  for (int64_t j = threadIdx.x; j < n; j += blockDim.x) memory[j] = x[j];
  __syncthreads();
  const float* row = rotate_row(memory, memory + n, a.rotation, a.inverse);
  for (int64_t j = threadIdx.x; j < n; j += blockDim.x) x[j] = row[j];
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
