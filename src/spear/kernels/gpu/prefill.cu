// See prefill.h. All of it is bound by memory; the products themselves are the library's.
#include <algorithm>

#include <cuda_fp16.h>

#include "spear/kernels/gpu/attention_row.cuh"
#include "spear/kernels/gpu/dispatch.h"
#include "spear/kernels/gpu/launch.h"
#include "spear/kernels/gpu/prefill.h"
#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>((count + kBlock - 1) / kBlock);
}

__device__ int64_t element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ half saturated(float v) {
  return __float2half_rn(fminf(fmaxf(v, -65504.0f), 65504.0f));
}

// One thread a lane's 16 bytes of a unit; its inputs are runs of 16 (8 of 16 bits).
template <int kBits>
__global__ void expand_kernel(const __grid_constant__ DeviceMatrix w, half* out, int64_t stride) {
  const int64_t i = element();
  if (i >= static_cast<int64_t>(w.tiles) * w.units * 32) return;
  const int lane = static_cast<int>(i % 32);
  const int64_t unit = i / 32;
  const int64_t row = unit / w.units * 8 + lane / 4;
  if (row >= w.n) return;
  const int t = lane % 4;
  const int first = static_cast<int>(unit % w.units) * (512 / kBits);
  const unsigned char* at = w.data + unit * w.unit_bytes;
  const uint4 bits = *reinterpret_cast<const uint4*>(at + lane * 16);
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  half* to = out + row * stride;
  if constexpr (kBits == 16) {
    const int column = first + t * 8;
    const auto* values = reinterpret_cast<const half*>(words);
    for (int j = 0; j < 8; ++j)
      if (column + j < w.k) to[column + j] = values[j];
    return;
  }
  float2 pair = make_float2(1, 0);  // scale, zero
  if (w.group == 0) pair = __half22float2(reinterpret_cast<const half2*>(w.row_scales)[row]);
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    constexpr int kCodes = 32 / kBits;
    const int within = kBits == 4 ? word / 2 * 64 + t * 16 + word % 2 * 8 : t * 16 + word * 4;
    const int column = first + within;
    if (column >= w.k) continue;
    if (w.group != 0)
      pair = __half22float2(
          *reinterpret_cast<const half2*>(at + 512 + (within / w.group * 8 + lane / 4) * 4));
    half values[kCodes];
#pragma unroll
    for (int j = 0; j < kCodes; ++j) {
      // Nibbles stand as 0, 4, 1, 5, 2, 6, 3, 7.
      const int shift = kBits == 4 ? (j / 2 + j % 2 * 4) * 4 : j * 8;
      const auto code = static_cast<float>(words[word] >> shift & ((1u << kBits) - 1u));
      values[j] = __float2half_rn((code - pair.y) * pair.x);
    }
    // k is a multiple of 8, so a run is whole.
    if constexpr (kBits == 4)
      *reinterpret_cast<uint4*>(to + column) = *reinterpret_cast<const uint4*>(values);
    else
      *reinterpret_cast<uint2*>(to + column) = *reinterpret_cast<const uint2*>(values);
  }
}

__global__ void expand_b_kernel(const __grid_constant__ DeviceMatrix w,
                                const __grid_constant__ DeviceCompensators ec, half* out,
                                int64_t stride) {
  const int64_t i = element();
  const int64_t row = i / ec.width;
  if (row >= w.n) return;
  const int j = static_cast<int>(i % ec.width);
  int owner = 0;
  if (ec.interleaved)
    owner = static_cast<int>(row & 1);
  else
    while (owner + 1 < ec.modules && row >= ec.module[owner + 1].first_row) ++owner;
  const int r = j - ec.module[owner].offset;
  float code = 0;
  if (r >= 0 && r < ec.module[owner].rank) code = ec.b[row * ec.b_stride + r];
  out[row * stride + w.k + j] = __float2half_rn(code);
}

__global__ void expand_codes_kernel(const int8_t* codes, int64_t count, half* out) {
  if (const int64_t i = element(); i < count)
    out[i] = __float2half_rn(static_cast<float>(codes[i]));
}

__global__ void norm_kernel(int n, const float* x, const float* weight, float eps, half* y,
                            int64_t stride) {
  __shared__ float slots[32];
  const int64_t row = blockIdx.x;
  const float* from = x + row * n;
  float squares = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kBlock) squares += from[j] * from[j];
  squares = block_reduce(squares, 0.0f, Plus{}, slots);
  const float inverse = rsqrtf(squares / static_cast<float>(n) + eps);
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kBlock)
    y[row * stride + j] = saturated(from[j] * inverse * (weight == nullptr ? 1.0f : weight[j]));
}

__global__ void half_kernel(int64_t count, int n, const float* x, half* y, int64_t stride) {
  if (const int64_t i = element(); i < count) y[i / n * stride + i % n] = saturated(x[i]);
}

__global__ void silu_kernel(int64_t count, int n, const float* x, half* y, int64_t stride) {
  const int64_t i = element();
  if (i >= count) return;
  const float2 pair = reinterpret_cast<const float2*>(x)[i];
  const float value = pair.x / (1.0f + __expf(-pair.x)) * pair.y;
  y[i / n * stride + i % n] = saturated(value / kSiluScale);
}

// One warp a token.
__global__ void gate_kernel(const __grid_constant__ DeviceCompensators ec, int64_t m,
                            const float* sums, float scale, half* y, int64_t stride, int hidden) {
  extern __shared__ float memory[];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t token = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (token >= m) return;
  float* u = memory + threadIdx.x / 32 * (ec.width + hidden);
  float* h = u + ec.width;
  half* to = y + token * stride;
  for (int j = lane; j < ec.width; j += 32) {
    u[j] = sums[token * ec.width + j] * ec.a_scales[j] / scale;
    to[j] = __float2half_rn(0.0f);
  }
  __syncwarp();
  const auto* weights = reinterpret_cast<const half*>(ec.gate);
  for (int i = 0; i < ec.modules; ++i) {
    const DeviceModule& part = ec.module[i];
    const float* in = u + part.offset;
    const half* w1 = weights + part.gate;
    const half* b1 = w1 + part.hidden * part.rank;
    const half* w2 = b1 + part.hidden;
    const half* b2 = w2 + part.hidden * part.rank;
    for (int k = lane; k < part.hidden; k += 32) {
      float sum = __half2float(b1[k]);
      for (int r = 0; r < part.rank; ++r) sum += __half2float(w1[k * part.rank + r]) * in[r];
      h[k] = fmaxf(sum, 0.0f);
    }
    __syncwarp();
    for (int r = lane; r < part.rank; r += 32) {
      float gamma = 1.0f;
      if (part.hidden > 0) {
        float sum = __half2float(b2[r]);
        for (int k = 0; k < part.hidden; ++k) sum += __half2float(w2[r * part.hidden + k]) * h[k];
        gamma += tanhf(sum);
      }
      to[part.offset + r] = saturated(gamma * in[r] * ec.b_scales[part.offset + r] * scale);
    }
    __syncwarp();
  }
}

// One warp a head of a row; blocks: (heads in fours, rows).
template <class T, int kDim>
__global__ void rope_append_kernel(const __grid_constant__ DecodeAttentionArgs a, float* q) {
  __shared__ float vectors[kBlock / 32][kDim];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int head = static_cast<int>(blockIdx.x) * (kBlock / 32) + warp;
  const int row = static_cast<int>(blockIdx.y);
  const int all = a.heads + 2 * a.kv_heads;
  if (head >= all) return;
  const float* from = a.qkv + (static_cast<int64_t>(row) * all + head) * kDim;
  const float* angles = a.angles + static_cast<int64_t>(row) * kDim;
  float* vector = vectors[warp];
  if (head < a.heads) {
    prepare_head<kDim>(from, a.q_norm, a.eps, angles, 1.0f,
                       q + (static_cast<int64_t>(row) * a.heads + head) * kDim, lane);
    return;
  }
  const bool key = head < a.heads + a.kv_heads;
  const int kv_head = head - a.heads - (key ? 0 : a.kv_heads);
  const int position = a.tables.contexts[row];
  const int page_size = static_cast<int>(a.cache.page_size);
  const int32_t page = a.tables.pages[a.tables.page_begin[row] + position / page_size];
  const int64_t to =
      (static_cast<int64_t>(page) * a.kv_heads + kv_head) * page_size + position % page_size;
  if (key)
    prepare_head<kDim>(from, a.k_norm, a.eps, angles, 1.0f, vector, lane);
  else
    for (int j = lane; j < kDim; j += 32) vector[j] = from[j];
  __syncwarp();
  store_row<kDim>(vector, static_cast<T*>(key ? a.cache.keys : a.cache.values) + to * kDim,
                  (key ? a.cache.key_scales : a.cache.value_scales) + to, lane);
}

}  // namespace

void expand_matrix(const DeviceMatrix& w, const DeviceCompensators& ec, uint16_t* out,
                   Stream stream) {
  auto* to = reinterpret_cast<half*>(out);
  const int64_t stride = w.k + ec.width;
  const int64_t lanes = static_cast<int64_t>(w.tiles) * w.units * 32;
  dispatch<4, 8, 16>(w.bits, [&](auto bits) {
    expand_kernel<bits()><<<blocks_for(lanes), kBlock, 0, stream>>>(w, to, stride);
  });
  check_launch();
  if (ec.width == 0) return;
  expand_b_kernel<<<blocks_for(static_cast<int64_t>(w.n) * ec.width), kBlock, 0, stream>>>(
      w, ec, to, stride);
  check_launch();
}

void expand_codes(const int8_t* codes, int64_t count, uint16_t* out, Stream stream) {
  if (count == 0) return;
  expand_codes_kernel<<<blocks_for(count), kBlock, 0, stream>>>(codes, count,
                                                                reinterpret_cast<half*>(out));
  check_launch();
}

void norm_rows(int64_t m, int32_t n, const float* x, const float* weight, float eps, uint16_t* y,
               int64_t stride, Stream stream) {
  if (m == 0) return;
  norm_kernel<<<static_cast<unsigned>(m), kBlock, 0, stream>>>(n, x, weight, eps,
                                                               reinterpret_cast<half*>(y), stride);
  check_launch();
}

void half_rows(int64_t m, int32_t n, const float* x, uint16_t* y, int64_t stride, Stream stream) {
  if (m == 0) return;
  half_kernel<<<blocks_for(m * n), kBlock, 0, stream>>>(m * n, n, x, reinterpret_cast<half*>(y),
                                                        stride);
  check_launch();
}

void silu_rows(int64_t m, int32_t n, const float* x, uint16_t* y, int64_t stride, Stream stream) {
  if (m == 0) return;
  silu_kernel<<<blocks_for(m * n), kBlock, 0, stream>>>(m * n, n, x, reinterpret_cast<half*>(y),
                                                        stride);
  check_launch();
}

void gate_rows(const DeviceCompensators& ec, int64_t m, const float* sums, float scale, uint16_t* y,
               int64_t stride, Stream stream) {
  if (m == 0) return;
  int hidden = 0;
  for (int i = 0; i < ec.modules; ++i) hidden = std::max(hidden, ec.module[i].hidden);
  constexpr int kWarps = 4;
  gate_kernel<<<static_cast<unsigned>((m + kWarps - 1) / kWarps), kWarps * 32,
                static_cast<size_t>(kWarps * (ec.width + hidden)) * sizeof(float), stream>>>(
      ec, m, sums, scale, reinterpret_cast<half*>(y), stride, hidden);
  check_launch();
}

void rope_append(const DecodeAttentionArgs& args, float* q, Stream stream) {
  if (args.m == 0) return;
  const int heads = args.heads + 2 * args.kv_heads;
  const dim3 grid(static_cast<unsigned>((heads + kBlock / 32 - 1) / (kBlock / 32)),
                  static_cast<unsigned>(args.m));
  dispatch<64, 128>(args.head_dim, [&](auto dim) {
    if (args.cache.type == DType::kF32)
      rope_append_kernel<float, dim()><<<grid, kBlock, 0, stream>>>(args, q);
    else if (args.cache.type == DType::kF16)
      rope_append_kernel<half, dim()><<<grid, kBlock, 0, stream>>>(args, q);
    else
      rope_append_kernel<int8_t, dim()><<<grid, kBlock, 0, stream>>>(args, q);
  });
  check_launch();
}

}  // namespace spear::gpu
