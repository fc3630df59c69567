// Sums and maxima over a block in a fixed order. Device code only.
#pragma once

namespace spear::gpu {

constexpr unsigned kFullWarp = 0xffffffffu;

template <class Op>
__device__ float warp_reduce(float value, Op op) {
  for (int offset = 16; offset > 0; offset /= 2)
    value = op(value, __shfl_xor_sync(kFullWarp, value, offset));
  return value;
}

struct Plus {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// All threads of the block get the result. `slots`: 32 floats of shared memory, free to reuse after
// the next barrier.
template <class Op>
__device__ float block_reduce(float value, float neutral, Op op, float* slots) {
  value = warp_reduce(value, op);
  __syncthreads();
  if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x + 31) / 32;
  value = static_cast<int>(threadIdx.x % 32) < warps ? slots[threadIdx.x % 32] : neutral;
  return warp_reduce(value, op);
}

}  // namespace spear::gpu
