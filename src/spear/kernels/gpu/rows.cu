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
//   multiplies them with x from shared memory by m16n8k16: the pair's 16 rows are the rows of A,
//   tokens the columns of B. Sums of a pair go to shared memory at (pair + warp), a place no other
//   warp has, and are added in a fixed order.
//
// Codes enter the tensor core as they stand: 4 bits under a zero exponent are the subnormal half
// code · 2^-24, so a mask is all the dequantization there is. The high nibbles of a byte pair come
// out 16 times larger; x is stored 4 times larger for the low ones and 4 times smaller for the high
// ones. Zero points are subtracted from the sums in F32.
//
// Index grammar: lane = 4 g + t; of A and C g is the row of a tile, of B the token; t is the
// quarter of the inputs, of C a pair of tokens.
//
// Code is small on purpose: a step runs several kernels in turn, and unrolled by default this one
// was 80 KB. Loops that run once or twice are not unrolled.
//
// Tried and slower: tokens as rows of A (twice the products, and moves to place the zero rows).
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
constexpr int kDepth = 5;             // items in a warp's ring
constexpr float kNormScale = 0.125f;  // of un-normalized activations, to stay within f16

// Where things stand in shared memory, in bytes.
struct SharedPlan {
  int x, x_stride, sums, sum_count, ring, slot, parts, squares, low_rank, v, b, a, out, gate, share;
  int scales, bias, weight, ec_scales, bytes;
};

struct RowsParams {
  RowsArgs a;
  SharedPlan at;
  int32_t gate_in_shared;
  int32_t gate_floats;  // scratch of one module's gate
};

__host__ __device__ int first_tile(int tiles, int block, int blocks) {
  return tiles * block / blocks;
}

// The units of a pair of tiles (the second may be all zero) against the tokens' activations; two
// chains of products, which the caller adds up.
template <int kBits>
struct Unit;

template <>
struct Unit<4> {
  static constexpr int kInputs = 128;
  static constexpr int kWords = 4;             // 16-byte pieces of x a lane reads for it
  static constexpr float kScale = 4194304.0f;  // 2^22
  __device__ static int piece(int i, int t) { return i / 2 * 128 + t * 32 + i % 2 * 16; }
  __device__ static void word(uint32_t q, uint32_t r, const uint4& x, float (&c)[4]) {
    constexpr uint32_t kLow = 0x000f000fu;
    constexpr uint32_t kHigh = 0x00f000f0u;
    mma_16x8x16(c, q & kLow, r & kLow, q & kHigh, r & kHigh, x.x, x.y);
    q >>= 8;
    r >>= 8;
    mma_16x8x16(c, q & kLow, r & kLow, q & kHigh, r & kHigh, x.z, x.w);
  }
  // c: the first 64 inputs, d: the second.
  __device__ static void product(const uint4& w, const uint4& v, const uint4 (&x)[4], float (&c)[4],
                                 float (&d)[4]) {
    word(w.x, v.x, x[0], c);
    word(w.z, v.z, x[2], d);
    word(w.y, v.y, x[1], c);
    word(w.w, v.w, x[3], d);
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
  __device__ static void word(uint32_t q, uint32_t r, uint32_t x0, uint32_t x1, float (&c)[4]) {
    mma_16x8x16(c, __byte_perm(q, 0, 0x4140), __byte_perm(r, 0, 0x4140), __byte_perm(q, 0, 0x4342),
                __byte_perm(r, 0, 0x4342), x0, x1);
  }
  __device__ static void product(const uint4& w, const uint4& v, const uint4 (&x)[2], float (&c)[4],
                                 float (&d)[4]) {
    word(w.x, v.x, x[0].x, x[0].y, c);
    word(w.z, v.z, x[1].x, x[1].y, d);
    word(w.y, v.y, x[0].z, x[0].w, c);
    word(w.w, v.w, x[1].z, x[1].w, d);
  }
  __device__ static half2 scaled(half2 v, int) { return v; }
};

template <>
struct Unit<16> {
  static constexpr int kInputs = 32;
  static constexpr int kWords = 1;
  static constexpr float kScale = 1.0f;
  __device__ static int piece(int, int t) { return t * 16; }
  __device__ static void product(const uint4& w, const uint4& v, const uint4 (&x)[1], float (&c)[4],
                                 float (&d)[4]) {
    mma_16x8x16(c, w.x, v.x, w.y, v.y, x[0].x, x[0].y);
    mma_16x8x16(d, w.z, v.z, w.w, v.w, x[0].z, x[0].w);
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
  // The warp of `warps` whose range holds `item`: the last that begins at or before it.
  __device__ int owner(int item, int warps) const {
    const int work = (2 * full_pairs + single) * units;
    const int paired = full_pairs * units;
    const int next = item < paired ? 2 * item + 2 : item + paired + 1;
    return min((next * warps - 1) / work, warps - 1);
  }
  // The first item of warp `w` of `warps`: equal bytes, not equal items.
  __device__ int begin(int w, int warps) const {
    const int work = (2 * full_pairs + single) * units;
    const int at = work * w / warps;
    const int paired = 2 * full_pairs * units;
    return at <= paired ? at / 2 : full_pairs * units + at - paired;
  }
};

// One warp's fetches: its items one after the other, into a ring of its own.
template <int kGroup>
struct Fetcher {
  const uint8_t* from;  // the next item's first unit
  unsigned char* ring;
  int unit_bytes, tile_bytes, units, full_pairs, lane;
  int pair, unit, slot;

  __device__ void next() {
    unsigned char* to = ring + slot * 2 * unit_bytes;
    copy_async16(to + lane * 16, from + lane * 16);
    const bool scales = kGroup != 0 && lane < (kGroup == 64 ? 4 : 2);
    if (scales) copy_async16(to + 512 + lane * 16, from + 512 + lane * 16);
    if (pair < full_pairs) {
      copy_async16(to + unit_bytes + lane * 16, from + tile_bytes + lane * 16);
      if (scales)
        copy_async16(to + unit_bytes + 512 + lane * 16, from + tile_bytes + 512 + lane * 16);
    }
    from += unit_bytes;
    slot = slot + 1 == kDepth ? 0 : slot + 1;
    if (++unit == units) {
      unit = 0;
      ++pair;
      from += tile_bytes;
    }
  }
};

// acc[0 .. 1]: the first tile's row for this lane's two tokens, acc[2 .. 3]: the second's. `sums`:
// Σx of the tokens' 64-input blocks of the unit.
template <int kGroup>
__device__ void add_group(float (&acc)[4], const float (&c)[4], float scale, int group,
                          const unsigned char* at, int unit_bytes, int lane, const float* first,
                          const float* second) {
  const int entry = 512 + group * 32 + lane / 4 * 4;
  const float2 low = __half22float2(*reinterpret_cast<const half2*>(at + entry));
  const float2 high = __half22float2(*reinterpret_cast<const half2*>(at + unit_bytes + entry));
  const float a = kGroup == 128 ? first[0] + first[1] : first[group];
  const float b = kGroup == 128 ? second[0] + second[1] : second[group];
  acc[0] += low.x * (c[0] * scale - low.y * a);
  acc[1] += low.x * (c[1] * scale - low.y * b);
  acc[2] += high.x * (c[2] * scale - high.y * a);
  acc[3] += high.x * (c[3] * scale - high.y * b);
}

__device__ float silu(float v) {
  return v / (1.0f + __expf(-v));
}

// Eight inputs as they stand in memory: f16 in the first half, or f32.
struct Eight {
  uint4 low, high;
};

__device__ Eight load8(const RowsArgs& a, int64_t at) {
  Eight v;
  if (a.input == RowsInput::kHalf) {
    v.low = load_cg(reinterpret_cast<const uint4*>(static_cast<const half*>(a.x) + at));
    v.high = make_uint4(0, 0, 0, 0);
  } else {
    const auto* p = reinterpret_cast<const uint4*>(static_cast<const float*>(a.x) + at);
    v.low = load_cg(p);
    v.high = load_cg(p + 1);
  }
  return v;
}

__device__ void floats_of(const Eight& in, RowsInput kind, float (&v)[8]) {
  const uint32_t words[8] = {in.low.x,  in.low.y,  in.low.z,  in.low.w,
                             in.high.x, in.high.y, in.high.z, in.high.w};
  if (kind == RowsInput::kHalf) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 f = __half22float2(half2_of(words[i]));
      v[2 * i] = f.x;
      v[2 * i + 1] = f.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = __uint_as_float(words[i]);
  }
}

// Eight activations into shared memory as f16 in the unit's pattern; the sum of each block of 64 by
// its first lane. Returns their sum of squares.
template <int kBits>
__device__ float stage8(const RowsParams& p, unsigned char* shared, int token, int c,
                        const Eight& in) {
  const RowsArgs& a = p.a;
  float v[8];
  floats_of(in, a.input, v);
  float squares = 0;
  if (a.input == RowsInput::kNorm) {
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
    if (a.norm_weight != nullptr && c * 8 < a.w.k) {
      const auto* w = reinterpret_cast<const float4*>(shared + p.at.weight + c * 32);
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
  if (c < p.at.sum_count * 8) {
    *reinterpret_cast<uint4*>(shared + p.at.x + token * p.at.x_stride + c * 16) =
        make_uint4(words[0], words[1], words[2], words[3]);
    if (c % 8 == 0)
      reinterpret_cast<float*>(shared + p.at.sums)[token * p.at.sum_count + c / 8] = sum;
  }
  return squares;
}

// Every token's activations and its warps' shares of the sum of squares. The warps divide into as
// many teams as there are tokens (or 16 of one warp each), and several loads are under way before
// the first is used.
template <int kBits>
__device__ void stage_tokens(const RowsParams& p, unsigned char* shared) {
  constexpr int kBatch = 2;
  const RowsArgs& a = p.a;
  const int k = a.w.k;
  const int chunks = p.at.sum_count * 8;  // of 8 inputs, padded to whole blocks
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int team = kWarps / a.m;  // warps of a token
  const int token = warp / team;
  const int member = warp - token * team;
  if (token >= a.m) return;
  float squares = 0;
#pragma unroll 1
  for (int c = member * 32 + lane; c - lane < chunks; c += kBatch * team * 32) {
    Eight in[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = (c + i * team * 32) * 8;
      in[i] = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
      if (at < k) in[i] = load8(a, static_cast<int64_t>(token) * k + at);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i)
      if (c + i * team * 32 - lane < chunks)
        squares += stage8<kBits>(p, shared, token, c + i * team * 32, in[i]);
  }
  if (a.input == RowsInput::kNorm) {
    squares = warp_reduce(squares, Plus{});
    if (lane == 0)
      reinterpret_cast<float*>(shared + p.at.squares)[token * kWarps + member] = squares;
  }
}

// A token's partial sums of u: the first are read before anything waits for x, the rest are added
// when they are needed; what is left is one sum a slice of threads.
struct LowRank {
  static constexpr int kFirst = 6;
  float first[kFirst];

  __device__ void load(const RowsParams& p, int token) {
    const int count = p.a.u.parts * p.a.ec.width;
    const float* from = p.a.u.partials + static_cast<int64_t>(token) * count;
#pragma unroll
    for (int i = 0; i < kFirst; ++i) {
      const int e = static_cast<int>(threadIdx.x) + i * kThreads;
      first[i] = e < count ? load_cg(from + e) : 0.0f;
    }
  }
  __device__ void stage(const RowsParams& p, unsigned char* shared, int token) const {
    const int width = p.a.ec.width;
    const int tid = static_cast<int>(threadIdx.x);
    const int count = p.a.u.parts * width;
    const float* from = p.a.u.partials + static_cast<int64_t>(token) * count;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kFirst; ++i) sum += first[i];
#pragma unroll 1
    for (int e = tid + kFirst * kThreads; e < count; e += kThreads) sum += load_cg(from + e);
    auto* to = reinterpret_cast<float*>(shared + p.at.low_rank) + token * kThreads;
#pragma unroll 1
    for (int offset = width; offset < 32; offset *= 2)
      sum += __shfl_xor_sync(kFullWarp, sum, offset);
    if (width >= 32)
      to[tid] = sum;
    else if (tid % 32 < width)
      to[tid / 32 * width + tid % 32] = sum;
  }
};

// 1 / rms of a token's input, or 1.
__device__ float inverse_rms(const RowsParams& p, const unsigned char* shared, int token) {
  if (p.a.input != RowsInput::kNorm) return 1.0f;
  const auto* squares = reinterpret_cast<const float*>(shared + p.at.squares) + token * kWarps;
  float sum = 0;
  const int team = kWarps / p.a.m;
#pragma unroll 4
  for (int w = 0; w < team; ++w) sum += squares[w];
  return rsqrtf(sum / static_cast<float>(p.a.w.k) + p.a.eps);
}

// Σ_i w[i] v[i] of f16 weights, for i = first, first + step, ...: pairs where rows begin at even
// places.
__device__ float dot_half(const half* w, const float* v, int count, int first, int step) {
  float even = 0;
  float odd = 0;
  if ((reinterpret_cast<uintptr_t>(w) & 3) == 0 && count % 2 == 0) {
    const auto* pairs = reinterpret_cast<const half2*>(w);
#pragma unroll 4
    for (int i = first; i < count / 2; i += step) {
      const float2 f = __half22float2(pairs[i]);
      even += f.x * v[2 * i];
      odd += f.y * v[2 * i + 1];
    }
  } else {
#pragma unroll 1
    for (int i = first; i < count; i += step) even += __half2float(w[i]) * v[i];
  }
  return even + odd;
}

// One warp: v = (γ(u) ⊙ u) · b_scales of one module, for every token. `memory`: its rank + hidden
// floats.
__device__ void gate(const RowsParams& p, unsigned char* shared, int index, float* memory,
                     int lane) {
  const DeviceCompensators& ec = p.a.ec;
  const DeviceModule& part = ec.module[index];
  const int slices = kThreads / max(ec.width, 32);
  const half* w1 = (p.gate_in_shared ? reinterpret_cast<const half*>(shared + p.at.gate)
                                     : reinterpret_cast<const half*>(ec.gate)) +
                   part.gate;
  const half* b1 = w1 + part.hidden * part.rank;
  const half* w2 = b1 + part.hidden;
  const half* b2 = w2 + part.hidden * part.rank;
  const auto* scales = reinterpret_cast<const float*>(shared + p.at.ec_scales) + part.offset;
  float* u = memory;
  float* hidden = memory + part.rank + part.rank % 2;
  const int lanes = part.rank <= 8 ? 4 : part.rank <= 16 ? 2 : 1;  // that share an output
#pragma unroll 1
  for (int token = 0; token < p.a.m; ++token) {
    const float rms = inverse_rms(p, shared, token);
    const auto* sums =
        reinterpret_cast<const float*>(shared + p.at.low_rank) + token * kThreads + part.offset;
    auto* v = reinterpret_cast<float*>(shared + p.at.v) + token * ec.width + part.offset;
#pragma unroll 1
    for (int r = lane; r < part.rank; r += 32) {
      float sum = 0;
#pragma unroll 4
      for (int s = 0; s < slices; ++s) sum += sums[s * ec.width + r];
      u[r] = sum * scales[r] * rms;
    }
    __syncwarp();
#pragma unroll 1
    for (int h = lane; h < part.hidden; h += 32)
      hidden[h] =
          fmaxf(__half2float(b1[h]) + dot_half(w1 + h * part.rank, u, part.rank, 0, 1), 0.0f);
    __syncwarp();
#pragma unroll 1
    for (int base = 0; base < part.rank; base += 32 / lanes) {
      const int r = base + lane / lanes;
      const bool inside = r < part.rank;
      float sum = 0;
      if (inside && part.hidden > 0)
        sum = dot_half(w2 + r * part.hidden, hidden, part.hidden, lane % lanes, lanes);
#pragma unroll 1
      for (int offset = lanes / 2; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(kFullWarp, sum, offset);
      if (inside && lane % lanes == 0) {
        const float gamma = part.hidden > 0 ? 1.0f + tanhf(sum + __half2float(b2[r])) : 1.0f;
        v[r] = gamma * u[r] * scales[ec.width + r];
      }
    }
    __syncwarp();
  }
}

// This lane's share of Σ_r b[row, r] v[r] of the row's own module: every `lanes`-th word of codes.
__device__ float compensation(const RowsParams& p, const unsigned char* shared, int local_row,
                              int row, int token, int lane, int lanes) {
  const DeviceCompensators& ec = p.a.ec;
  int i = 0;
  if (ec.interleaved) {
    i = row & 1;
  } else {
    while (i + 1 < ec.modules && row >= ec.module[i + 1].first_row) ++i;
  }
  const int rank = ec.module[i].rank;
  const auto* b = reinterpret_cast<const int8_t*>(shared + p.at.b) + local_row * ec.b_stride;
  const auto* v =
      reinterpret_cast<const float*>(shared + p.at.v) + token * ec.width + ec.module[i].offset;
  float sum = 0;
#pragma unroll 1
  for (int r = 4 * lane; r < rank; r += 4 * lanes) {
    const char4 codes = *reinterpret_cast<const char4*>(b + r);
    sum += static_cast<float>(codes.x) * v[r];
    if (r + 1 < rank) sum += static_cast<float>(codes.y) * v[r + 1];
    if (r + 2 < rank) sum += static_cast<float>(codes.z) * v[r + 2];
    if (r + 3 < rank) sum += static_cast<float>(codes.w) * v[r + 3];
  }
  return sum;
}

// Queues the copy of a table to shared memory; its first byte is aligned to 4.
__device__ void copy_table(unsigned char* to, const void* from, int bytes) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) * 4; i < bytes; i += kThreads * 4)
    copy_async4(to + i, static_cast<const unsigned char*>(from) + i);
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
  const int streams = kWarps - a.ec.modules;  // the last warps work out the gates
  const Items items(tiles, a.w.units);
  const int begin = warp < streams ? items.begin(warp, streams) : items.count;
  const int end = warp < streams ? items.begin(warp + 1, streams) : items.count;
  const int pair0 = begin / a.w.units;
  const int tile_bytes = a.w.units * a.w.unit_bytes;
  Fetcher<kGroup> fetcher{a.w.data + static_cast<size_t>(tile0 + pair0) * tile_bytes +
                              static_cast<size_t>(begin) * a.w.unit_bytes,
                          shared + p.at.ring + warp * kDepth * p.at.slot,
                          a.w.unit_bytes,
                          tile_bytes,
                          a.w.units,
                          items.full_pairs,
                          lane,
                          pair0,
                          begin - pair0 * a.w.units,
                          0};

  // Before the predecessor has ended: constants alone, small tables first.
  if (a.w.row_scales != nullptr)
    copy_table(shared + p.at.scales, a.w.row_scales + 2 * row0, local_rows * 4);
  if (a.bias != nullptr) copy_table(shared + p.at.bias, a.bias + row0, local_rows * 4);
  if (a.norm_weight != nullptr) copy_table(shared + p.at.weight, a.norm_weight, a.w.k * 4);
  if (compensated) {
    copy_table(shared + p.at.b, a.ec.b + static_cast<size_t>(row0) * a.ec.b_stride,
               local_rows * a.ec.b_stride);
    copy_table(shared + p.at.ec_scales, a.ec.a_scales, a.ec.width * 4);
    copy_table(shared + p.at.ec_scales + a.ec.width * 4, a.ec.b_scales, a.ec.width * 4);
    if (p.gate_in_shared) copy_table(shared + p.at.gate, a.ec.gate, (a.ec.gate_halves + 1) / 2 * 4);
  }
  const int per_row = a.output == RowsOutput::kSilu ? 2 : 1;
  // Threads that share an output: at least as many as warps that share a pair of tiles.
  const int pairs = items.full_pairs + items.single;
  const int lanes = pairs <= 2 ? 16 : pairs <= 5 ? 8 : 4;
  const int outputs = local_rows / per_row;
  const int first_output = row0 / per_row;
  if (a.next.width > 0)
    copy_table(shared + p.at.a, a.next.a + static_cast<size_t>(first_output) * a.next.width,
               outputs * a.next.width);
  copy_commit();
#pragma unroll 1
  for (int d = 0; d < kDepth; ++d) {
    if (begin + d < end) fetcher.next();
    copy_commit();
  }
  if (tid <= streams) begins[tid] = items.begin(tid, streams);

  wait_for_predecessor();
  copy_wait<kDepth>();
  if (a.norm_weight != nullptr) __syncthreads();  // every thread's share of the tables
  // The residual stream's old values, for whoever will add to them.
  float old = 0;
  const int early = tid / lanes;
  if (a.output == RowsOutput::kResidual && tid % lanes == 0 && early < outputs * a.m)
    old = load_cg(a.y + static_cast<int64_t>(early / outputs) * a.w.n + row0 + early % outputs);
  LowRank u;
  if (compensated) u.load(p, 0);
  stage_tokens<kBits>(p, shared);
  if (compensated) {
    u.stage(p, shared, 0);
#pragma unroll 1
    for (int token = 1; token < a.m; ++token) {
      u.load(p, token);
      u.stage(p, shared, token);
    }
  }
  __syncthreads();

  auto* parts = reinterpret_cast<float*>(shared + p.at.parts);
  if (warp < streams) {
    const unsigned char* x = shared + p.at.x + min(lane / 4, a.m - 1) * p.at.x_stride;
    const int token = lane % 4 * 2;  // of C: this one and the next
    const auto* sums = reinterpret_cast<const float*>(shared + p.at.sums);
    const float* first_sums = sums + min(token, a.m - 1) * p.at.sum_count;
    const float* second_sums = sums + min(token + 1, a.m - 1) * p.at.sum_count;
    float acc[4] = {0, 0, 0, 0};
    float more[4] = {0, 0, 0, 0};
    int pair = pair0;
    int unit = begin - pair0 * a.w.units;
    int slot = 0;
#pragma unroll 1
    for (int item = begin; item < end; ++item) {
      copy_wait<kDepth - 1>();
      if constexpr (kGroup != 0) __syncwarp();
      uint4 xs[U::kWords];
#pragma unroll
      for (int i = 0; i < U::kWords; ++i)
        xs[i] = *reinterpret_cast<const uint4*>(x + unit * U::kInputs * 2 + U::piece(i, lane % 4));
      const unsigned char* at = fetcher.ring + slot * p.at.slot;
      const uint4 w = *reinterpret_cast<const uint4*>(at + lane * 16);
      uint4 v = make_uint4(0, 0, 0, 0);
      if (pair < items.full_pairs)
        v = *reinterpret_cast<const uint4*>(at + a.w.unit_bytes + lane * 16);
      if constexpr (kGroup == 0) {
        U::product(w, v, xs, acc, more);
      } else {
        float c[4] = {0, 0, 0, 0};
        float d[4] = {0, 0, 0, 0};
        U::product(w, v, xs, c, d);
        const int block = unit * (U::kInputs / 64);
        if constexpr (kGroup == 128) {
#pragma unroll
          for (int i = 0; i < 4; ++i) c[i] += d[i];
        }
        add_group<kGroup>(acc, c, U::kScale, 0, at, a.w.unit_bytes, lane, first_sums + block,
                          second_sums + block);
        if constexpr (kGroup == 64)
          add_group<kGroup>(acc, d, U::kScale, 1, at, a.w.unit_bytes, lane, first_sums + block,
                            second_sums + block);
        __syncwarp();
      }
      if (item + kDepth < end) fetcher.next();
      copy_commit();
      slot = slot + 1 == kDepth ? 0 : slot + 1;
      if (++unit == a.w.units || item + 1 == end) {
        float* to = parts + ((pair + warp) * 2 * a.m + token) * 8 + lane / 4;
        const bool full = pair < items.full_pairs;
        if (token < a.m) {
          to[0] = acc[0] + more[0];
          if (full) to[a.m * 8] = acc[2] + more[2];
        }
        if (token + 1 < a.m) {
          to[8] = acc[1] + more[1];
          if (full) to[a.m * 8 + 8] = acc[3] + more[3];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[i] = more[i] = 0;
        unit = 0;
        ++pair;
      }
    }
  } else {
    const int index = warp - streams;
    gate(p, shared, index, reinterpret_cast<float*>(shared + p.at.share) + index * p.gate_floats,
         lane);
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

  // Each output is the business of `lanes` threads: of its sums, one a warp that worked on its
  // pair, and of its compensator.
  const float input_scale = a.input == RowsInput::kNorm ? 1.0f / kNormScale : a.input_scale;
  auto* out = reinterpret_cast<float*>(shared + p.at.out);
#pragma unroll 1
  for (int base = 0; base < outputs * a.m; base += kThreads / lanes) {
    const int i = base + tid / lanes;
    const bool inside = i < outputs * a.m;
    const int token = inside ? i / outputs : 0;
    const int o = inside ? i - token * outputs : 0;
    const float rms = inverse_rms(p, shared, token);
    float value = 0;
    float gated = 0;
#pragma unroll 1
    for (int h = 0; h < per_row; ++h) {
      const int local = o * per_row + h;
      const int pair = local / 16;
      const int w = items.owner(pair * a.w.units, streams) + tid % lanes;
      float sum = 0;
      if (w < streams && begins[w] < begins[w + 1] && begins[w] < (pair + 1) * a.w.units)
        sum = parts[(((pair + w) * 2 + local / 8 % 2) * a.m + token) * 8 + local % 8];
      float low_rank = 0;
      if (compensated)
        low_rank = compensation(p, shared, local, row0 + local, token, tid % lanes, lanes);
#pragma unroll 1
      for (int offset = lanes / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kFullWarp, sum, offset);
        low_rank += __shfl_xor_sync(kFullWarp, low_rank, offset);
      }
      if constexpr (kGroup == 0) {
        sum *= U::kScale;
        if constexpr (kBits != 16) {
          const float2 scale =
              __half22float2(reinterpret_cast<const half2*>(shared + p.at.scales)[local]);
          const float total =
              reinterpret_cast<const float*>(shared + p.at.sums)[a.m * p.at.sum_count + token];
          sum = scale.x * (sum - scale.y * total);
        }
      }
      gated = value;
      value = sum * input_scale * rms + low_rank;
      if (a.bias != nullptr) value += reinterpret_cast<const float*>(shared + p.at.bias)[local];
    }
    if (!inside || tid % lanes != 0) continue;
    if (a.output == RowsOutput::kSilu) {
      value *= silu(gated);
      const float stored = fminf(fmaxf(value / kSiluScale, -65504.0f), 65504.0f);
      reinterpret_cast<half*>(
          a.half_y)[static_cast<int64_t>(token) * (a.w.n / 2) + first_output + o] =
          __float2half_rn(stored);
    } else {
      float* y = a.y + static_cast<int64_t>(token) * a.w.n + row0 + o;
      if (a.output == RowsOutput::kResidual) value += base == 0 ? old : load_cg(y);
      *y = value;
    }
    if (a.next.width > 0) out[i] = value;
  }
  if (a.next.width > 0) {
    __syncthreads();
#pragma unroll 1
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
  RowsParams p{args, {}, 0, 0};
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
  s.scales = take(w.row_scales != nullptr ? tiles * 8 * 4 : 0);
  s.bias = take(args.bias != nullptr ? tiles * 8 * 4 : 0);
  s.weight = take(args.norm_weight != nullptr ? w.k * 4 : 0);
  s.ec_scales = take(args.ec.width * 8);
  s.b = take(tiles * 8 * args.ec.b_stride);
  s.a = take(tiles * 8 * args.next.width);
  s.out = take(args.next.width > 0 ? tiles * 8 * m * 4 : 0);
  int rank = 0;
  for (int i = 0; i < args.ec.modules; ++i) rank = std::max(rank, args.ec.module[i].rank);
  p.gate_floats = rank + rank % 2 + hidden;
  s.share = take(std::max(args.next.width > 0 ? kThreads : 0, args.ec.modules * p.gate_floats) * 4);
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
