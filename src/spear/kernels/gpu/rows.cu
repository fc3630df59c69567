// See rows.h. One block an SM, 16 warps, at most 64 registers a thread and half of the shared
// memory, so that the next kernel of the chain stands beside it and fetches its first weights while
// this one still computes (programmatic dependent launch).
//
//   rows of the block ──► tiles of 8 rows ──► pairs of tiles
//   items = (pair, unit of inputs), in this order; each warp walks one contiguous range of items:
//
//        inputs ──────────────►            warp 0: ▓▓▓▓▓▓▓▓▓▓▓
//     pair 0  ▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒             warp 1:            ▒▒▒▒▒▒▒▒▒▒▒▒
//     pair 1  ▒▒▒▒▒▒▒░░░░░░░░░░            ...
//
//   A warp fetches its items by cp.async into a ring of its own (no barrier in the main loop) and
//   multiplies them with x from shared memory by m16n8k16: tokens are the rows of A, weights the
//   columns of B. Sums of a pair go to shared memory at (pair + warp), a place no other warp has,
//   and are added in the order of warps.
//
// Codes enter the tensor core as they stand: 4 bits under a zero exponent are the subnormal half
// code · 2^-24, so a mask is all the dequantization there is. The high nibbles of a byte pair come
// out 16 times larger; x is stored 4 times larger for the low ones and 4 times smaller for the high
// ones. Zero points are subtracted from the sums in F32.
//
// Index grammar: lane = 4 g + t; g: token or row of the tile; t: quarter of the inputs.
#include <algorithm>

#include <cuda_fp16.h>

#include "spear/kernels/gpu/dispatch.h"
#include "spear/kernels/gpu/launch.h"
#include "spear/kernels/gpu/project.cuh"
#include "spear/kernels/gpu/ptx.cuh"
#include "spear/kernels/gpu/reduce.cuh"
#include "spear/kernels/gpu/rows.h"

namespace spear::gpu {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kDepth = 4;             // items in a warp's ring
constexpr float kNormScale = 0.125f;  // of un-normalized activations, to stay within f16

// Where things stand in shared memory, in bytes.
struct SharedPlan {
  int x, x_stride, sums, sum_count, ring, slot, parts, squares, low_rank, v, b, a, out, gate, share,
      bytes;
};

struct RowsParams {
  RowsArgs a;
  SharedPlan at;
  int32_t gate_in_shared;
};

__host__ __device__ int first_tile(int tiles, int block, int blocks) {
  return static_cast<int>(static_cast<long long>(tiles) * block / blocks);
}

// One 512-byte unit against the tokens' activations.
template <int kBits>
struct Unit;

template <>
struct Unit<4> {
  static constexpr int kInputs = 128;
  static constexpr int kWords = 4;             // 16-byte pieces of x a lane reads for it
  static constexpr float kScale = 4194304.0f;  // 2^22
  __device__ static int piece(int i, int t) { return i / 2 * 128 + t * 32 + i % 2 * 16; }
  __device__ static void half(uint32_t q, const uint4& x, float (&c)[4]) {
    constexpr uint32_t kLow = 0x000f000fu;
    constexpr uint32_t kHigh = 0x00f000f0u;
    mma_16x8x16(c, x.x, 0, x.y, 0, q & kLow, q & kHigh);
    q >>= 8;
    mma_16x8x16(c, x.z, 0, x.w, 0, q & kLow, q & kHigh);
  }
  // First and second 64 inputs.
  __device__ static void first(const uint4& w, const uint4 (&x)[4], float (&c)[4]) {
    half(w.x, x[0], c);
    half(w.y, x[1], c);
  }
  __device__ static void second(const uint4& w, const uint4 (&x)[4], float (&c)[4]) {
    half(w.z, x[2], c);
    half(w.w, x[3], c);
  }
  __device__ static void all(const uint4& w, const uint4 (&x)[4], float (&c)[4]) {
    first(w, x, c);
    second(w, x, c);
  }
  // x as this unit wants it: a pair of low nibbles, a pair of high ones.
  __device__ static half2 scaled(half2 v, int pair) {
    return __hmul2(v, __float2half2_rn(pair % 2 == 0 ? 4.0f : 0.25f));
  }
};

template <>
struct Unit<8> {
  static constexpr int kInputs = 64;
  static constexpr int kWords = 2;
  static constexpr float kScale = 16777216.0f;  // 2^24
  __device__ static int piece(int i, int t) { return t * 32 + i * 16; }
  __device__ static void word(uint32_t q, uint32_t x0, uint32_t x1, float (&c)[4]) {
    mma_16x8x16(c, x0, 0, x1, 0, __byte_perm(q, 0, 0x4140), __byte_perm(q, 0, 0x4342));
  }
  __device__ static void all(const uint4& w, const uint4 (&x)[2], float (&c)[4]) {
    word(w.x, x[0].x, x[0].y, c);
    word(w.y, x[0].z, x[0].w, c);
    word(w.z, x[1].x, x[1].y, c);
    word(w.w, x[1].z, x[1].w, c);
  }
  __device__ static half2 scaled(half2 v, int) { return v; }
};

template <>
struct Unit<16> {
  static constexpr int kInputs = 32;
  static constexpr int kWords = 1;
  static constexpr float kScale = 1.0f;
  __device__ static int piece(int, int t) { return t * 16; }
  __device__ static void all(const uint4& w, const uint4 (&x)[1], float (&c)[4]) {
    mma_16x8x16(c, x[0].x, 0, x[0].y, 0, w.x, w.y);
    mma_16x8x16(c, x[0].z, 0, x[0].w, 0, w.z, w.w);
  }
  __device__ static half2 scaled(half2 v, int) { return v; }
};

// The items of a block: pairs of tiles × units; the last pair may be one tile.
struct Items {
  int units, full_pairs, single, count;
  __device__ Items(int tiles, int units_)
      : units(units_),
        full_pairs(tiles / 2),
        single(tiles % 2),
        count((full_pairs + single) * units_) {}
  // The first item of warp `w` of `warps`: equal bytes, not equal items.
  __device__ int begin(int w, int warps) const {
    const int work = (2 * full_pairs + single) * units;
    const int at = static_cast<int>(static_cast<long long>(work) * w / warps);
    const int paired = 2 * full_pairs * units;
    return at <= paired ? at / 2 : full_pairs * units + at - paired;
  }
};

// What one warp does in the main loop.
template <int kBits, int kGroup>
struct WarpStream {
  using U = Unit<kBits>;
  const uint8_t* source;
  unsigned char* ring;
  int unit_bytes, slot_bytes, units, full_pairs, lane;

  __device__ void fetch(int item, int slot) const {
    const int pair = item / units;
    const uint8_t* from =
        source + (static_cast<size_t>(pair) * 2 * units + item - pair * units) * unit_bytes;
    unsigned char* to = ring + slot * slot_bytes;
    copy_async16(to + lane * 16, from + lane * 16);
    const bool scales = kGroup != 0 && lane < (kGroup == 64 ? 4 : 2);
    if (scales) copy_async16(to + 512 + lane * 16, from + 512 + lane * 16);
    if (pair < full_pairs) {
      from += static_cast<size_t>(units) * unit_bytes;
      to += unit_bytes;
      copy_async16(to + lane * 16, from + lane * 16);
      if (scales) copy_async16(to + 512 + lane * 16, from + 512 + lane * 16);
    }
  }

  // One unit of one tile; `sums`: Σx of this token's 64-input blocks of the unit.
  __device__ void unit(const unsigned char* at, const uint4 (&x)[U::kWords], const float* sums,
                       float (&acc)[4]) const {
    const uint4 w = *reinterpret_cast<const uint4*>(at + lane * 16);
    if constexpr (kGroup == 0) {
      U::all(w, x, acc);
    } else {
      const auto add = [&](float(&c)[4], int group, float sum) {
        const uint2 pairs = *reinterpret_cast<const uint2*>(at + 512 + group * 32 + lane % 4 * 8);
        const float2 first = __half22float2(half2_of(pairs.x));
        const float2 other = __half22float2(half2_of(pairs.y));
        acc[0] += first.x * (c[0] * U::kScale - first.y * sum);
        acc[1] += other.x * (c[1] * U::kScale - other.y * sum);
      };
      float c[4] = {0, 0, 0, 0};
      if constexpr (kGroup == 128) {
        U::all(w, x, c);
        add(c, 0, sums[0] + sums[1]);
      } else {
        U::first(w, x, c);
        add(c, 0, sums[0]);
        c[0] = c[1] = c[2] = c[3] = 0;
        U::second(w, x, c);
        add(c, 1, sums[1]);
      }
    }
  }
};

__device__ float silu(float v) {
  return v / (1.0f + __expf(-v));
}

// Eight f32 of the input, unscaled.
__device__ void load8(const RowsArgs& a, int64_t at, int column, float (&v)[8]) {
  if (a.input == RowsInput::kHalf) {
    const uint4 h = load_cg(reinterpret_cast<const uint4*>(static_cast<const half*>(a.x) + at));
    const uint32_t words[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 f = __half22float2(half2_of(words[i]));
      v[2 * i] = f.x;
      v[2 * i + 1] = f.y;
    }
  } else {
    const auto* p = reinterpret_cast<const float4*>(static_cast<const float*>(a.x) + at);
    const float4 low = load_cg(p);
    const float4 high = load_cg(p + 1);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  }
}

// Activations of one token into shared memory as f16 in the unit's pattern, the sums of their
// blocks of 64, and this warp's share of the sum of squares.
template <int kBits>
__device__ void stage_token(const RowsParams& p, unsigned char* shared, int token) {
  const RowsArgs& a = p.a;
  const int k = a.w.k;
  const int chunks = p.at.sum_count * 8;  // of 8 inputs, padded to whole units
  float squares = 0;
  for (int c = static_cast<int>(threadIdx.x); c - static_cast<int>(threadIdx.x % 32) < chunks;
       c += kThreads) {
    float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (c * 8 < k) load8(a, static_cast<int64_t>(token) * k + c * 8, c * 8, v);
    if (a.input == RowsInput::kNorm) {
#pragma unroll
      for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
      if (a.norm_weight != nullptr && c * 8 < k) {
        const auto* w = reinterpret_cast<const float4*>(a.norm_weight + c * 8);
        const float4 low = w[0];
        const float4 high = w[1];
        v[0] *= low.x, v[1] *= low.y, v[2] *= low.z, v[3] *= low.w;
        v[4] *= high.x, v[5] *= high.y, v[6] *= high.z, v[7] *= high.w;
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] *= kNormScale;
    }
    float sum = 0;
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // Four times the value must still be a half.
      const half2 h = __floats2half2_rn(fminf(fmaxf(v[2 * i], -16376.0f), 16376.0f),
                                        fminf(fmaxf(v[2 * i + 1], -16376.0f), 16376.0f));
      const float2 f = __half22float2(h);
      sum += f.x + f.y;
      words[i] = bits_of(Unit<kBits>::scaled(h, i));
    }
    sum += __shfl_xor_sync(kFullWarp, sum, 1);
    sum += __shfl_xor_sync(kFullWarp, sum, 2);
    sum += __shfl_xor_sync(kFullWarp, sum, 4);
    if (c < chunks) {
      *reinterpret_cast<uint4*>(shared + p.at.x + token * p.at.x_stride + c * 16) =
          make_uint4(words[0], words[1], words[2], words[3]);
      if (c % 8 == 0)
        reinterpret_cast<float*>(shared + p.at.sums)[token * p.at.sum_count + c / 8] = sum;
    }
  }
  if (a.input == RowsInput::kNorm) {
    squares = warp_reduce(squares, Plus{});
    if (threadIdx.x % 32 == 0)
      reinterpret_cast<float*>(shared + p.at.squares)[token * kWarps + threadIdx.x / 32] = squares;
  }
}

// Adds up a token's partial sums of u: what is left is one sum a slice of threads.
__device__ void stage_low_rank(const RowsParams& p, unsigned char* shared, int token) {
  const int width = p.a.ec.width;
  const int tid = static_cast<int>(threadIdx.x);
  const float* from = p.a.u.partials + static_cast<int64_t>(token) * p.a.u.parts * width;
  float sum = 0;
  const int count = p.a.u.parts * width;
#pragma unroll 4
  for (int e = tid; e < count; e += kThreads) sum += load_cg(from + e);
  auto* to = reinterpret_cast<float*>(shared + p.at.low_rank) + token * kThreads;
  for (int offset = width; offset < 32; offset *= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
  if (width >= 32)
    to[tid] = sum;
  else if (tid % 32 < width)
    to[tid / 32 * width + tid % 32] = sum;
}

// 1 / rms of a token's input, or 1.
__device__ float inverse_rms(const RowsParams& p, const unsigned char* shared, int token) {
  if (p.a.input != RowsInput::kNorm) return 1.0f;
  const auto* squares = reinterpret_cast<const float*>(shared + p.at.squares) + token * kWarps;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += squares[w];
  return rsqrtf(sum / static_cast<float>(p.a.w.k) + p.a.eps);
}

// One warp: v = (γ(u) ⊙ u) · b_scales for every token.
__device__ void gate(const RowsParams& p, unsigned char* shared, int lane) {
  const DeviceCompensators& ec = p.a.ec;
  const int slices = kThreads / max(ec.width, 32);
  const half* weights = p.gate_in_shared ? reinterpret_cast<const half*>(shared + p.at.gate)
                                         : reinterpret_cast<const half*>(ec.gate);
  auto* u = reinterpret_cast<float*>(shared + p.at.share);
  for (int token = 0; token < p.a.m; ++token) {
    const float rms = inverse_rms(p, shared, token);
    const auto* sums = reinterpret_cast<const float*>(shared + p.at.low_rank) + token * kThreads;
    auto* v = reinterpret_cast<float*>(shared + p.at.v) + token * ec.width;
    for (int j = lane; j < ec.width; j += 32) {
      float sum = 0;
      for (int s = 0; s < slices; ++s) sum += sums[s * ec.width + j];
      u[j] = sum * ec.a_scales[j] * rms;
    }
    __syncwarp();
    for (int i = 0; i < ec.modules; ++i) {
      const DeviceModule& module = ec.module[i];
      const float* in = u + module.offset;
      float* hidden = u + ec.width;
      const half* w1 = weights + module.gate;
      const half* b1 = w1 + module.hidden * module.rank;
      const half* w2 = b1 + module.hidden;
      const half* b2 = w2 + module.hidden * module.rank;
      for (int h = lane; h < module.hidden; h += 32) {
        float sum = __half2float(b1[h]);
        for (int r = 0; r < module.rank; ++r) sum += __half2float(w1[h * module.rank + r]) * in[r];
        hidden[h] = fmaxf(sum, 0.0f);
      }
      __syncwarp();
      for (int r = lane; r < module.rank; r += 32) {
        float gamma = 1.0f;
        if (module.hidden > 0) {
          float sum = __half2float(b2[r]);
          for (int h = 0; h < module.hidden; ++h)
            sum += __half2float(w2[r * module.hidden + h]) * hidden[h];
          gamma += tanhf(sum);
        }
        v[module.offset + r] = gamma * in[r] * ec.b_scales[module.offset + r];
      }
      __syncwarp();
    }
  }
}

// Σ_r b[row, r] v[r] of the row's own module.
__device__ float compensation(const RowsParams& p, const unsigned char* shared, int local_row,
                              int row, int token) {
  const DeviceCompensators& ec = p.a.ec;
  int i = 0;
  if (ec.interleaved) {
    i = row & 1;
  } else {
    while (i + 1 < ec.modules && row >= ec.module[i + 1].first_row) ++i;
  }
  const auto* b = reinterpret_cast<const int8_t*>(shared + p.at.b) + local_row * ec.b_stride;
  const auto* v =
      reinterpret_cast<const float*>(shared + p.at.v) + token * ec.width + ec.module[i].offset;
  float sum = 0;
  for (int r = 0; r < ec.module[i].rank; r += 4) {
    const char4 codes = *reinterpret_cast<const char4*>(b + r);
    sum += static_cast<float>(codes.x) * v[r];  // codes beyond the rank are zero, v is finite
    if (r + 1 < ec.module[i].rank) sum += static_cast<float>(codes.y) * v[r + 1];
    if (r + 2 < ec.module[i].rank) sum += static_cast<float>(codes.z) * v[r + 2];
    if (r + 3 < ec.module[i].rank) sum += static_cast<float>(codes.w) * v[r + 3];
  }
  return sum;
}

// Bytes of a [rows, stride] table whose first byte need not be aligned to 16.
__device__ void copy_table(unsigned char* to, const int8_t* from, int bytes, int thread,
                           int threads) {
  for (int i = thread * 4; i < bytes; i += threads * 4)
    *reinterpret_cast<uint32_t*>(to + i) = __ldg(reinterpret_cast<const uint32_t*>(from + i));
}

template <int kBits, int kGroup>
__global__ void __launch_bounds__(kThreads, 2) rows_kernel(const __grid_constant__ RowsParams p) {
  using U = Unit<kBits>;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int begins[kWarps + 1];
  launch_dependents();
  const RowsArgs& a = p.a;
  const int tid = static_cast<int>(threadIdx.x);
  const int lane = tid % 32;
  const int warp = tid / 32;
  const int tile0 = first_tile(a.w.tiles, static_cast<int>(blockIdx.x), gridDim.x);
  const int tiles = first_tile(a.w.tiles, static_cast<int>(blockIdx.x) + 1, gridDim.x) - tile0;
  const int row0 = tile0 * 8;
  const int local_rows = min(tiles * 8, a.w.n - row0);
  const bool compensated = a.ec.width > 0;
  const int streams = compensated ? kWarps - 1 : kWarps;  // the last warp works out the gate
  const Items items(tiles, a.w.units);
  const int begin = warp < streams ? items.begin(warp, streams) : items.count;
  const int end = warp < streams ? items.begin(warp + 1, streams) : items.count;
  const WarpStream<kBits, kGroup> stream{
      a.w.data + static_cast<size_t>(tile0) * a.w.units * a.w.unit_bytes,
      shared + p.at.ring + warp * kDepth * p.at.slot,
      a.w.unit_bytes,
      p.at.slot,
      a.w.units,
      items.full_pairs,
      lane};

  // Before the predecessor has ended: weights alone.
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    if (begin + d < end) stream.fetch(begin + d, d);
    copy_commit();
  }
  if (tid <= streams) begins[tid] = items.begin(tid, streams);
  if (compensated) {
    copy_table(shared + p.at.b, a.ec.b + static_cast<size_t>(row0) * a.ec.b_stride,
               local_rows * a.ec.b_stride, tid, kThreads);
    if (p.gate_in_shared) {
      auto* to = reinterpret_cast<uint32_t*>(shared + p.at.gate);
      const auto* from = reinterpret_cast<const uint32_t*>(a.ec.gate);
      for (int i = tid; i < (a.ec.gate_halves + 1) / 2; i += kThreads) to[i] = __ldg(from + i);
    }
  }
  const int per_row = a.output == RowsOutput::kSilu ? 2 : 1;
  const int outputs = local_rows / per_row;
  const int first_output = row0 / per_row;
  if (a.next.width > 0)
    copy_table(shared + p.at.a, a.next.a + static_cast<size_t>(first_output) * a.next.width,
               outputs * a.next.width, tid, kThreads);

  wait_for_predecessor();
  for (int token = 0; token < a.m; ++token) stage_token<kBits>(p, shared, token);
  if (compensated)
    for (int token = 0; token < a.m; ++token) stage_low_rank(p, shared, token);
  __syncthreads();

  auto* parts = reinterpret_cast<float*>(shared + p.at.parts);
  if (warp < streams) {
    const int token = min(lane / 4, a.m - 1);
    const unsigned char* x = shared + p.at.x + token * p.at.x_stride;
    const auto* sums = reinterpret_cast<const float*>(shared + p.at.sums) + token * p.at.sum_count;
    float acc[2][4] = {};
    int pair = begin / a.w.units;
    int unit = begin - pair * a.w.units;
    int slot = 0;
    for (int item = begin; item < end; ++item) {
      copy_wait<kDepth - 1>();
      if constexpr (kGroup != 0) __syncwarp();
      uint4 xs[U::kWords];
#pragma unroll
      for (int i = 0; i < U::kWords; ++i)
        xs[i] = *reinterpret_cast<const uint4*>(x + unit * U::kInputs * 2 + U::piece(i, lane % 4));
      const unsigned char* at = stream.ring + slot * p.at.slot;
      const float* block_sums = sums + unit * (U::kInputs / 64);
      stream.unit(at, xs, block_sums, acc[0]);
      if (pair < items.full_pairs) stream.unit(at + a.w.unit_bytes, xs, block_sums, acc[1]);
      if constexpr (kGroup != 0) __syncwarp();
      if (item + kDepth < end) stream.fetch(item + kDepth, slot);
      copy_commit();
      slot = slot + 1 == kDepth ? 0 : slot + 1;
      if (++unit == a.w.units || item + 1 == end) {
        if (lane / 4 < a.m) {
          float* to = parts + ((pair + warp) * 2 * a.m + lane / 4) * 8 + lane % 4 * 2;
          *reinterpret_cast<float2*>(to) = make_float2(acc[0][0], acc[0][1]);
          if (pair < items.full_pairs)
            *reinterpret_cast<float2*>(to + a.m * 8) = make_float2(acc[1][0], acc[1][1]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[0][i] = acc[1][i] = 0;
        unit = 0;
        ++pair;
      }
    }
  } else {
    gate(p, shared, lane);
  }
  if (kGroup == 0 && kBits != 16 && warp == 0) {
    // Σx of each token, for the zero points of whole rows.
    auto* sums = reinterpret_cast<float*>(shared + p.at.sums);
    for (int token = 0; token < a.m; ++token) {
      float sum = 0;
      for (int i = lane; i < p.at.sum_count; i += 32) sum += sums[token * p.at.sum_count + i];
      sum = warp_reduce(sum, Plus{});
      if (lane == 0) sums[a.m * p.at.sum_count + token] = sum;
    }
  }
  __syncthreads();

  const float input_scale = a.input == RowsInput::kNorm ? 1.0f / kNormScale : a.input_scale;
  // The product's row for a token, without the predecessor's scale.
  const auto finished = [&](int local, int token, float rms) {
    const int tile = local / 8;
    const int from = tile / 2 * a.w.units;
    const int to = from + a.w.units;
    float sum = 0;
    for (int w = 0; w < streams; ++w)
      if (begins[w] < to && begins[w + 1] > from && begins[w] < begins[w + 1])
        sum += parts[(((tile / 2 + w) * 2 + tile % 2) * a.m + token) * 8 + local % 8];
    const int row = row0 + local;
    float y = sum;
    if constexpr (kGroup == 0) {
      y *= U::kScale;
      if constexpr (kBits != 16) {
        const float2 pair = __half22float2(reinterpret_cast<const half2*>(a.w.row_scales)[row]);
        const float total =
            reinterpret_cast<const float*>(shared + p.at.sums)[a.m * p.at.sum_count + token];
        y = pair.x * (y - pair.y * total);
      }
    }
    y *= input_scale * rms;
    if (a.bias != nullptr) y += a.bias[row];
    if (compensated) y += compensation(p, shared, local, row, token);
    return y;
  };
  auto* out = reinterpret_cast<float*>(shared + p.at.out);
  for (int i = tid; i < outputs * a.m; i += kThreads) {
    const int token = i / outputs;
    const int o = i - token * outputs;
    const float rms = inverse_rms(p, shared, token);
    float value = 0;
    if (a.output == RowsOutput::kSilu) {
      value = silu(finished(2 * o, token, rms)) * finished(2 * o + 1, token, rms);
      const float stored = fminf(fmaxf(value / kSiluScale, -65504.0f), 65504.0f);
      reinterpret_cast<half*>(
          a.half_y)[static_cast<int64_t>(token) * (a.w.n / 2) + first_output + o] =
          __float2half_rn(stored);
    } else {
      float* y = a.y + static_cast<int64_t>(token) * a.w.n + row0 + o;
      value = finished(o, token, rms);
      if (a.output == RowsOutput::kResidual) value += load_cg(y);
      *y = value;
    }
    if (a.next.width > 0) out[i] = value;
  }
  if (a.next.width > 0) {
    __syncthreads();
    for (int token = 0; token < a.m; ++token)
      project_outputs<kThreads>(
          out + token * outputs, outputs, reinterpret_cast<const int8_t*>(shared + p.at.a),
          a.next.weight == nullptr ? nullptr : a.next.weight + first_output, a.next.width,
          reinterpret_cast<float*>(shared + p.at.share),
          a.next.partials + (static_cast<int64_t>(token) * gridDim.x + blockIdx.x) * a.next.width);
  }
}

int align16(int bytes) {
  return (bytes + 15) / 16 * 16;
}

RowsParams plan(const RowsArgs& args, int blocks) {
  RowsParams p{args, {}, 0};
  const DeviceMatrix& w = args.w;
  const int tiles = (w.tiles + blocks - 1) / blocks;
  const int padded = (w.k + 127) / 128 * 128;
  int at = 0;
  const auto take = [&](int bytes) {
    const int begin = at;
    at += align16(bytes);
    return begin;
  };
  const int m = args.m;
  SharedPlan& s = p.at;
  s.x_stride = padded * 2 + 16;
  s.sum_count = padded / 64;
  s.slot = 2 * w.unit_bytes;
  s.ring = take(kWarps * kDepth * s.slot);
  s.x = take(m * s.x_stride);
  s.sums = take((m * s.sum_count + m) * 4);
  s.parts = take(((tiles + 1) / 2 + kWarps) * 2 * 8 * m * 4);
  s.squares = take(m * kWarps * 4);
  int hidden = 0;
  for (int i = 0; i < args.ec.modules; ++i) hidden = std::max(hidden, args.ec.module[i].hidden);
  s.low_rank = take(args.ec.width > 0 ? m * kThreads * 4 : 0);
  s.v = take(m * args.ec.width * 4);
  s.b = take(tiles * 8 * args.ec.b_stride);
  s.a = take(tiles * 8 * args.next.width);
  s.out = take(args.next.width > 0 ? tiles * 8 * m * 4 : 0);
  s.share = take(std::max(args.next.width > 0 ? kThreads : 0, args.ec.width + hidden) * 4);
  p.gate_in_shared = args.ec.gate_halves * 2 <= 16384;
  s.gate = take(p.gate_in_shared ? args.ec.gate_halves * 2 + 4 : 0);
  s.bytes = at;
  return p;
}

}  // namespace

int32_t rows_blocks(const DeviceMatrix& w, int32_t multiprocessors) {
  return std::min(w.tiles, multiprocessors);
}

bool rows_fits(const RowsArgs& args, int32_t multiprocessors) {
  return args.m <= kMaxRowTokens &&
         plan(args, rows_blocks(args.w, multiprocessors)).at.bytes <= 160 * 1024;
}

void rows(const RowsArgs& args, int32_t multiprocessors, bool dependent, Stream stream) {
  if (args.m == 0) return;
  const int blocks = rows_blocks(args.w, multiprocessors);
  const RowsParams p = plan(args, blocks);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(blocks)),
                          .block = kThreads,
                          .shared_bytes = static_cast<size_t>(p.at.bytes),
                          .stream = stream,
                          .dependent = dependent};
  const auto at = std::source_location::current();
  if (args.w.bits == 4)
    dispatch<0, 64, 128>(args.w.group,
                         [&](auto group) { launch(rows_kernel<4, group()>, shape, at, p); });
  else
    dispatch<8, 16>(args.w.bits, [&](auto bits) { launch(rows_kernel<bits(), 0>, shape, at, p); });
}

}  // namespace spear::gpu
