// Operations without a reduction: one thread an element, all of them bound by memory.
#include <cuda_bf16.h>

#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>((count + kBlock - 1) / kBlock);
}

__device__ int64_t element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__global__ void round_kernel(int64_t count, const float* x, __nv_bfloat16* y) {
  if (const int64_t i = element(); i < count) y[i] = __float2bfloat16_rn(x[i]);
}

__global__ void add_kernel(int64_t count, const float* x, float* y) {
  if (const int64_t i = element(); i < count) y[i] += x[i];
}

__global__ void bias_kernel(int64_t count, int64_t n, const float* bias, float* y) {
  if (const int64_t i = element(); i < count) y[i] += bias[i % n];
}

__device__ float to_float(float value) {
  return value;
}
__device__ float to_float(uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}

template <class T>
__global__ void embed_kernel(int64_t count, int64_t k, const T* table, const int32_t* tokens,
                             float* y) {
  if (const int64_t i = element(); i < count)
    y[i] = to_float(table[static_cast<int64_t>(tokens[i / k]) * k + i % k]);
}

// One thread a pair (j, j + d/2) of a head.
__global__ void rope_kernel(const RopeArgs a) {
  const int64_t half = a.head_dim / 2;
  const int64_t i = element();
  if (i >= a.m * a.heads * half) return;
  const int64_t j = i % half;
  const int64_t head = i / half % a.heads;
  const int64_t row = i / (half * a.heads);
  float* x = a.x + row * a.row_stride + head * a.head_dim;
  // The angle in double: at position 10^5 a float product is off by 10^-2 turns.
  const double angle =
      static_cast<double>(a.positions[row]) * static_cast<double>(a.inverse_frequencies[j]);
  double s = 0;
  double c = 0;
  sincos(angle, &s, &c);
  const auto cosine = static_cast<float>(c);
  const auto sine = a.inverse ? -static_cast<float>(s) : static_cast<float>(s);
  const float low = x[j];
  const float high = x[j + half];
  x[j] = low * cosine - high * sine;
  x[j + half] = high * cosine + low * sine;
}

__global__ void silu_mul_kernel(const SiluMulArgs a) {
  if (const int64_t i = element(); i < a.count) {
    const float g = a.gate[i];
    a.y[i] = g / (1.0f + expf(-g)) * a.up[i];
  }
}

// d silu(g) = σ(g) (1 + g (1 − σ(g)))
__global__ void silu_mul_backward_kernel(const SiluMulBackwardArgs a) {
  if (const int64_t i = element(); i < a.count) {
    const float g = a.gate[i];
    const float sigmoid = 1.0f / (1.0f + expf(-g));
    const float dy = a.dy[i];
    const float up = a.up[i];
    a.dup[i] = dy * g * sigmoid;
    a.dgate[i] = dy * up * sigmoid * (1.0f + g * (1.0f - sigmoid));
  }
}

}  // namespace

void round_to_bf16(int64_t count, const float* x, uint16_t* y, Stream stream) {
  if (count == 0) return;
  round_kernel<<<blocks_for(count), kBlock, 0, stream>>>(count, x,
                                                         reinterpret_cast<__nv_bfloat16*>(y));
  check_launch();
}

void add(int64_t count, const float* x, float* y, Stream stream) {
  if (count == 0) return;
  add_kernel<<<blocks_for(count), kBlock, 0, stream>>>(count, x, y);
  check_launch();
}

void add_bias(int64_t m, int64_t n, const float* bias, float* y, Stream stream) {
  if (m * n == 0) return;
  bias_kernel<<<blocks_for(m * n), kBlock, 0, stream>>>(m * n, n, bias, y);
  check_launch();
}

void embed_rows(int64_t m, int64_t k, const float* table, const int32_t* tokens, float* y,
                Stream stream) {
  if (m == 0) return;
  embed_kernel<<<blocks_for(m * k), kBlock, 0, stream>>>(m * k, k, table, tokens, y);
  check_launch();
}

void embed_rows(int64_t m, int64_t k, const uint16_t* table, const int32_t* tokens, float* y,
                Stream stream) {
  if (m == 0) return;
  embed_kernel<<<blocks_for(m * k), kBlock, 0, stream>>>(m * k, k, table, tokens, y);
  check_launch();
}

void rope(const RopeArgs& args, Stream stream) {
  const int64_t pairs = args.m * args.heads * (args.head_dim / 2);
  if (pairs == 0) return;
  rope_kernel<<<blocks_for(pairs), kBlock, 0, stream>>>(args);
  check_launch();
}

void silu_mul(const SiluMulArgs& args, Stream stream) {
  if (args.count == 0) return;
  silu_mul_kernel<<<blocks_for(args.count), kBlock, 0, stream>>>(args);
  check_launch();
}

void silu_mul_backward(const SiluMulBackwardArgs& args, Stream stream) {
  if (args.count == 0) return;
  silu_mul_backward_kernel<<<blocks_for(args.count), kBlock, 0, stream>>>(args);
  check_launch();
}

}  // namespace spear::gpu
