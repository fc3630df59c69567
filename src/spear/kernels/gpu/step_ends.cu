// The first and the last kernel of a decode step, one block a row. See decode_step.h.
#include <cuda_fp16.h>

#include "spear/kernels/gpu/decode_step.h"
#include "spear/kernels/gpu/launch.h"
#include "spear/kernels/gpu/project.cuh"
#include "spear/kernels/gpu/ptx.cuh"
#include "spear/kernels/gpu/reduce.cuh"
#include "spear/kernels/gpu/rotation.cuh"

namespace spear::gpu {
namespace {

constexpr int kBlock = 512;

__device__ float half_bits(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

// Element j of a row of canonical codes.
__device__ float value_at(const QuantizedView& w, int64_t row, int64_t j) {
  const uint8_t* codes = w.codes + row * ((static_cast<int64_t>(w.k) * w.bits + 7) / 8);
  if (w.bits == 16)
    return __uint_as_float(static_cast<unsigned>(codes[2 * j] | codes[2 * j + 1] << 8) << 16);
  const int64_t first = j * w.bits;
  unsigned window = codes[first / 8];
  if (first % 8 + w.bits > 8) window |= static_cast<unsigned>(codes[first / 8 + 1]) << 8;
  const auto code = static_cast<float>(window >> (first % 8) & ((1u << w.bits) - 1u));
  const int64_t at = row * (w.group == 0 ? 1 : w.k / w.group) + (w.group == 0 ? 0 : j / w.group);
  float zero = static_cast<float>(1 << (w.bits - 1));
  if (w.zero_kind == ZeroKind::kU4)
    zero = static_cast<float>(static_cast<const uint8_t*>(w.zeros)[at / 2] >> (at % 2 * 4) & 15);
  else if (w.zero_kind == ZeroKind::kU8)
    zero = static_cast<float>(static_cast<const uint8_t*>(w.zeros)[at]) / 16.0f;
  else if (w.zero_kind == ZeroKind::kF16)
    zero = half_bits(static_cast<const uint16_t*>(w.zeros)[at]);
  return (code - zero) * half_bits(w.scales[at]);
}

__global__ void __launch_bounds__(kBlock) begin_kernel(const __grid_constant__ BeginArgs a) {
  extern __shared__ float memory[];
  __shared__ float share[kBlock];
  launch_dependents();
  wait_for_predecessor();
  const int64_t hidden = a.embedding.k;
  const int row = static_cast<int>(blockIdx.x);
  float* x = memory;
  const int64_t token = a.tables.tokens[row];
  for (int64_t j = threadIdx.x; j < hidden; j += kBlock) x[j] = value_at(a.embedding, token, j);
  __syncthreads();
  if (a.rotation.n > 0) x = rotate_row(x, memory + hidden, a.rotation, false);
  for (int64_t j = threadIdx.x; j < hidden; j += kBlock) a.x[row * hidden + j] = x[j];
  // The angle in double: at position 10^5 a float product is off by 10^-2 turns.
  const int half = a.head_dim / 2;
  for (int j = static_cast<int>(threadIdx.x); j < half; j += kBlock) {
    double sine = 0;
    double cosine = 0;
    sincos(
        static_cast<double>(a.tables.contexts[row]) * static_cast<double>(a.inverse_frequencies[j]),
        &sine, &cosine);
    reinterpret_cast<float2*>(a.angles)[row * half + j] =
        make_float2(static_cast<float>(cosine), static_cast<float>(sine));
  }
  if (a.next.width > 0)
    project_outputs<kBlock>(x, static_cast<int>(hidden), a.next.a, a.next.weight, a.next.width,
                            share, a.next.partials + static_cast<int64_t>(row) * a.next.width);
}

__global__ void __launch_bounds__(kBlock) finish_kernel(const __grid_constant__ FinishArgs a) {
  extern __shared__ float memory[];
  __shared__ float slots[32];
  launch_dependents();
  wait_for_predecessor();
  const int64_t row = blockIdx.x;
  const float* from = a.x + static_cast<int64_t>(a.row_of[row]) * a.hidden;
  float* x = memory;
  for (int j = static_cast<int>(threadIdx.x); j < a.hidden; j += kBlock) x[j] = load_cg(from + j);
  __syncthreads();
  if (a.rotation.n > 0) x = rotate_row(x, memory + a.hidden, a.rotation, true);
  float squares = 0;
  for (int j = static_cast<int>(threadIdx.x); j < a.hidden; j += kBlock) squares += x[j] * x[j];
  squares = block_reduce(squares, 0.0f, Plus{}, slots);
  const float inverse = rsqrtf(squares / static_cast<float>(a.hidden) + a.eps);
  for (int j = static_cast<int>(threadIdx.x); j < a.hidden; j += kBlock) {
    const float v = x[j] * inverse * (a.weight == nullptr ? 1.0f : a.weight[j]);
    if (a.normed != nullptr) a.normed[row * a.hidden + j] = v;
    if (a.half_y != nullptr)
      reinterpret_cast<half*>(a.half_y)[row * a.hidden + j] =
          __float2half_rn(fminf(fmaxf(v, -65504.0f), 65504.0f));
  }
}

}  // namespace

void begin_step(const BeginArgs& args, Stream stream) {
  if (args.m == 0) return;
  const auto hidden = static_cast<size_t>(args.embedding.k);
  launch(begin_kernel,
         {.grid = dim3(static_cast<unsigned>(args.m)),
          .block = kBlock,
          .shared_bytes = hidden * (args.rotation.n > 0 ? 2 : 1) * sizeof(float),
          .stream = stream,
          .dependent = false},
         std::source_location::current(), args);
}

void finish_step(const FinishArgs& args, Stream stream) {
  if (args.rows == 0) return;
  const auto hidden = static_cast<size_t>(args.hidden);
  launch(finish_kernel,
         {.grid = dim3(static_cast<unsigned>(args.rows)),
          .block = kBlock,
          .shared_bytes = hidden * (args.rotation.n > 0 ? 2 : 1) * sizeof(float),
          .stream = stream},
         std::source_location::current(), args);
}

}  // namespace spear::gpu
