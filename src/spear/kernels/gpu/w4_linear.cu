// The plain path of the quantized linear on a GPU: the canonical layout expanded beside a library
// product, and the gate of a compensator. Correct for every artifact; the fused kernels are another
// file's business.
#include <cuda_fp16.h>

#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>((count + kBlock - 1) / kBlock);
}

__device__ float half_bits(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

__device__ float zero_of(const QuantizedView& w, int64_t i) {
  switch (w.zero_kind) {
    case ZeroKind::kNone:
      return static_cast<float>(1 << (w.bits - 1));
    case ZeroKind::kU4:
      return static_cast<float>(static_cast<const uint8_t*>(w.zeros)[i / 2] >> (i % 2 * 4) & 15);
    case ZeroKind::kU8:
      return static_cast<float>(static_cast<const uint8_t*>(w.zeros)[i]) / 16.0f;
    case ZeroKind::kF16:
      return half_bits(static_cast<const uint16_t*>(w.zeros)[i]);
  }
  return 0.0f;
}

__device__ float weight_at(const QuantizedView& w, int64_t row, int64_t column) {
  const int64_t row_bytes = (static_cast<int64_t>(w.k) * w.bits + 7) / 8;
  const int64_t bit = column * w.bits;
  const uint8_t* at = w.codes + row * row_bytes + bit / 8;
  unsigned code = at[0];
  if (bit % 8 + w.bits > 8) code |= static_cast<unsigned>(at[1]) << 8;
  code = code >> (bit % 8) & ((1u << w.bits) - 1u);
  const int64_t i = row * (w.k / w.group) + column / w.group;
  return (static_cast<float>(code) - zero_of(w, i)) * half_bits(w.scales[i]);
}

__device__ void put(float* out, int64_t i, float value) {
  out[i] = value;
}
__device__ void put(uint16_t* out, int64_t i, float value) {
  const unsigned bits = __float_as_uint(value);
  out[i] = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class T>
__global__ void dequantize_kernel(const QuantizedView w, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<int64_t>(w.n) * w.k) put(out, i, weight_at(w, i / w.k, i % w.k));
}

__global__ void embed_kernel(const QuantizedView w, int64_t m, const int32_t* tokens, float* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < m * w.k) y[i] = weight_at(w, tokens[i / w.k], i % w.k);
}

// One block a token; hidden activations in shared memory.
__global__ void gate_kernel(const CompensatorView ec, float* z) {
  extern __shared__ float memory[];
  float* values = memory;            // [rank]
  float* hidden = memory + ec.rank;  // [gate_hidden]
  float* row = z + static_cast<int64_t>(blockIdx.x) * ec.rank;
  for (int i = static_cast<int>(threadIdx.x); i < ec.rank; i += static_cast<int>(blockDim.x))
    values[i] = row[i];
  __syncthreads();
  for (int h = static_cast<int>(threadIdx.x); h < ec.gate_hidden;
       h += static_cast<int>(blockDim.x)) {
    float sum = half_bits(ec.b1[h]);
    for (int i = 0; i < ec.rank; ++i) sum += half_bits(ec.w1[h * ec.rank + i]) * values[i];
    hidden[h] = fmaxf(sum, 0.0f);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < ec.rank; i += static_cast<int>(blockDim.x)) {
    float sum = half_bits(ec.b2[i]);
    for (int h = 0; h < ec.gate_hidden; ++h)
      sum += half_bits(ec.w2[i * ec.gate_hidden + h]) * hidden[h];
    row[i] = values[i] * (1.0f + tanhf(sum));
  }
}

__global__ void factor_kernel(const void* factor, const uint16_t* scales, int32_t bits,
                              int32_t rank, int32_t columns, float* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(rank) * columns) return;
  const int64_t row = i / columns;
  const int64_t j = i % columns;
  if (bits == 16) {
    out[i] = half_bits(static_cast<const uint16_t*>(factor)[i]);
    return;
  }
  int code = 0;
  if (bits == 8) {
    code = static_cast<const int8_t*>(factor)[i];
  } else {
    const int64_t row_bytes = (static_cast<int64_t>(columns) + 1) / 2;
    code = static_cast<const uint8_t*>(factor)[row * row_bytes + j / 2] >> (j % 2 * 4) & 15;
    if (code > 7) code -= 16;
  }
  out[i] = static_cast<float>(code) * half_bits(scales[row]);
}

}  // namespace

void dequantize(const QuantizedView& w, uint16_t* out, Stream stream) {
  dequantize_kernel<<<blocks_for(static_cast<int64_t>(w.n) * w.k), kBlock, 0, stream>>>(w, out);
  check_launch();
}

void dequantize(const QuantizedView& w, float* out, Stream stream) {
  dequantize_kernel<<<blocks_for(static_cast<int64_t>(w.n) * w.k), kBlock, 0, stream>>>(w, out);
  check_launch();
}

void embed_quantized(const QuantizedView& w, int64_t m, const int32_t* tokens, float* y,
                     Stream stream) {
  if (m == 0) return;
  embed_kernel<<<blocks_for(m * w.k), kBlock, 0, stream>>>(w, m, tokens, y);
  check_launch();
}

void apply_gate(const CompensatorView& ec, int64_t m, float* z, Stream stream) {
  if (m == 0 || ec.gate_hidden == 0) return;
  const size_t bytes = static_cast<size_t>(ec.rank + ec.gate_hidden) * sizeof(float);
  gate_kernel<<<static_cast<unsigned>(m), 64, bytes, stream>>>(ec, z);
  check_launch();
}

void expand_factor(const void* factor, const uint16_t* scales, int32_t bits, int32_t rank,
                   int32_t columns, float* out, Stream stream) {
  factor_kernel<<<blocks_for(static_cast<int64_t>(rank) * columns), kBlock, 0, stream>>>(
      factor, scales, bits, rank, columns, out);
  check_launch();
}

}  // namespace spear::gpu
