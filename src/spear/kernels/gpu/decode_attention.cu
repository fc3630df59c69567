// Attention of a decode step: one query row a sequence, all query heads of a KV head together, RoPE
// and the cache's append included. See decode_step.h.
//
//   grid (splits, KV heads, rows): the splits of one (row, KV head) share its context and are one
//   cluster, whose first block adds up their results from shared memory and writes. Within a block
//   16 lanes take one key at a time and keep a running maximum, sum and output of their own.
//
// The row's own key and value need not go through memory: the first block takes them from shared
// memory, after writing them to the cache. Older ones are fetched to L2 before the predecessor
// ends: nobody writes them in this step.
#include <algorithm>
#include <bit>
#include <stdexcept>

#include <cuda_fp16.h>

#include <cooperative_groups.h>

#include "spear/kernels/gpu/attention_row.cuh"
#include "spear/kernels/gpu/decode_step.h"
#include "spear/kernels/gpu/dispatch.h"
#include "spear/kernels/gpu/launch.h"
#include "spear/kernels/gpu/project.cuh"
#include "spear/kernels/gpu/ptx.cuh"
#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTeams = kThreads / 16;  // keys under way at a time
constexpr float kLog2e = 1.4426950408889634f;

template <int kDim>
struct Piece {  // a lane's part of a row of kDim: kDim / 64 times 4 values, 64 apart
  static constexpr int kCount = kDim / 64;
  float4 v[kCount];
};

__device__ float4 load4(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ float4 load4(const half* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  const float2 low = __half22float2(half2_of(bits.x));
  const float2 high = __half22float2(half2_of(bits.y));
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ float4 load4(const int8_t* p) {
  const char4 c = *reinterpret_cast<const char4*>(p);
  return make_float4(c.x, c.y, c.z, c.w);
}

template <int kDim, class T>
__device__ Piece<kDim> load_piece(const T* row, int lane) {
  Piece<kDim> p;
#pragma unroll
  for (int i = 0; i < Piece<kDim>::kCount; ++i) p.v[i] = load4(row + i * 64 + lane * 4);
  return p;
}

template <int kDim>
__device__ float dot(const Piece<kDim>& a, const Piece<kDim>& b) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < Piece<kDim>::kCount; ++i)
    sum += a.v[i].x * b.v[i].x + a.v[i].y * b.v[i].y + a.v[i].z * b.v[i].z + a.v[i].w * b.v[i].w;
  return sum;
}

template <int kDim>
__device__ void scale_add(Piece<kDim>& o, float keep, float p, const Piece<kDim>& v) {
#pragma unroll
  for (int i = 0; i < Piece<kDim>::kCount; ++i) {
    o.v[i].x = o.v[i].x * keep + p * v.v[i].x;
    o.v[i].y = o.v[i].y * keep + p * v.v[i].y;
    o.v[i].z = o.v[i].z * keep + p * v.v[i].z;
    o.v[i].w = o.v[i].w * keep + p * v.v[i].w;
  }
}

__device__ void fetch_to_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// What a block of the cluster hands to its first: for each query head the output before division,
// the maximum and the sum of weights.
template <int kDim, int kGroup>
struct alignas(16) Partial {
  float output[kGroup][kDim];
  float maximum[kGroup];
  float total[kGroup];
};

struct AttentionParams {
  DecodeAttentionArgs a;
  int32_t page_shift;   // log2 of the page size
  int32_t a_in_shared;  // next.a is copied to shared memory
};

template <class T, int kDim, int kGroup>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(const __grid_constant__ AttentionParams p) {
  using Part = Partial<kDim, kGroup>;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ __align__(16) float q[kGroup][kDim];
  __shared__ __align__(16) float own[2][kDim];  // the row's key and value
  __shared__ float share[kThreads];
  const DecodeAttentionArgs& a = p.a;
  auto* warps = reinterpret_cast<Part*>(memory);  // [kWarps]
  Part* received = warps + kWarps;                // [splits], of the cluster's blocks
  const int split = static_cast<int>(blockIdx.x);
  const int splits = static_cast<int>(gridDim.x);
  auto* table = reinterpret_cast<unsigned char*>(received + splits);  // next.a
  launch_dependents();
#if __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  if (splits > 1) cluster_arrive();  // a block's memory may be written once it runs
#endif
  const int tid = static_cast<int>(threadIdx.x);
  const int lane = tid % 32;
  const int warp = tid / 32;
  const int team = tid / 16;
  const int head = static_cast<int>(blockIdx.y);  // of keys and values
  const int row = static_cast<int>(blockIdx.z);
  const int context = a.tables.contexts[row];
  const int32_t* pages = a.tables.pages + a.tables.page_begin[row];
  const int page_size = 1 << p.page_shift;
  const auto cached = [&](int j) {  // a row of the cache
    return (((static_cast<int64_t>(pages[j >> p.page_shift]) * a.kv_heads + head) << p.page_shift) +
            (j & (page_size - 1)));
  };
  auto* keys = static_cast<T*>(a.cache.keys);
  auto* values = static_cast<T*>(a.cache.values);
  const int first = static_cast<int>(static_cast<int64_t>(context) * split / splits);
  const int last = static_cast<int>(static_cast<int64_t>(context) * (split + 1) / splits);
#pragma unroll 1
  for (int j = first + team; j < min(last, first + 8 * kTeams); j += kTeams) {
    constexpr int kLine = 128 / static_cast<int>(sizeof(T));
    if (lane % 16 * kLine < kDim) {
      const int64_t at = cached(j) * kDim + lane % 16 * kLine;
      fetch_to_l2(keys + at);
      fetch_to_l2(values + at);
    }
  }
  const int count = kGroup * kDim;
  const int8_t* next_a = a.next.a + static_cast<int64_t>(head) * count * a.next.width;
  if (split == 0 && p.a_in_shared != 0) {
#pragma unroll 1
    for (int i = tid * 16; i < count * a.next.width; i += kThreads * 16)
      copy_async16(table + i, next_a + i);
    copy_commit();
  }

  wait_for_predecessor();
  const float* qkv = a.qkv + static_cast<int64_t>(row) * (a.heads + 2 * a.kv_heads) * kDim;
  const float* angles = a.angles + row * kDim;
  // The group's queries, then (in the first block) the row's own key and value.
#pragma unroll 1
  for (int g = warp; g < (split == 0 ? kGroup + 2 : kGroup); g += kWarps) {
    const bool query = g < kGroup;
    float* to = query ? q[g] : own[g - kGroup];
    const int from = query ? head * kGroup + g : a.heads + (g - kGroup) * a.kv_heads + head;
    if (g != kGroup + 1) {
      prepare_head<kDim>(qkv + from * kDim, query ? a.q_norm : a.k_norm, a.eps, angles,
                         query ? kLog2e * rsqrtf(static_cast<float>(kDim)) : 1.0f, to, lane);
    } else {
      for (int j = lane; j < kDim; j += 32) to[j] = load_cg(qkv + from * kDim + j);
    }
    __syncwarp();
    if (!query) {
      const int64_t at = cached(context);
      T* stored = (g == kGroup ? keys : values) + at * kDim;
      store_row<kDim>(to, a.append ? stored : nullptr,
                      (g == kGroup ? a.cache.key_scales : a.cache.value_scales) + at, lane);
    }
  }
  __syncthreads();

  Piece<kDim> query[kGroup];
  Piece<kDim> out[kGroup];
  float maximum[kGroup];
  float total[kGroup];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    query[g] = load_piece<kDim>(q[g], lane % 16);
    maximum[g] = -INFINITY;
    total[g] = 0;
#pragma unroll
    for (int i = 0; i < Piece<kDim>::kCount; ++i) out[g].v[i] = make_float4(0, 0, 0, 0);
  }
  // One key a step and team, the next one's row already under way. Both teams of a warp take every
  // step, so that shuffles find all lanes. After the cached ones comes the row's own key.
  const int steps = (last - first + kTeams - 1) / kTeams;
  const bool takes_own = split == 0 && warp == 0;
  struct Row {
    Piece<kDim> key, value;
    float key_scale, value_scale;
    bool valid;
  };
  const auto load = [&](int s) {
    Row r;
    const int j = first + s * kTeams + team;
    r.valid = s < steps && j < last;
    r.key_scale = r.value_scale = 1.0f;
    if (r.valid) {
      const int64_t from = cached(j);
      r.key = load_piece<kDim>(keys + from * kDim, lane % 16);
      r.value = load_piece<kDim>(values + from * kDim, lane % 16);
      if constexpr (sizeof(T) == 1) {
        r.key_scale = a.cache.key_scales[from];
        r.value_scale = a.cache.value_scales[from];
      }
    } else {
      r.key = load_piece<kDim>(own[0], lane % 16);
      r.value = load_piece<kDim>(own[1], lane % 16);
      r.valid = takes_own && s == steps && lane < 16;
    }
    return r;
  };
  const int rounds = steps + (takes_own ? 1 : 0);
  Row row_now = load(0);
#pragma unroll 1
  for (int s = 0; s < rounds; ++s) {
    const Row r = row_now;
    row_now = load(s + 1);
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      float score = dot(query[g], r.key);
#pragma unroll
      for (int offset = 8; offset > 0; offset /= 2)
        score += __shfl_xor_sync(kFullWarp, score, offset);
      score = r.valid ? score * r.key_scale : -INFINITY;
      const float highest = fmaxf(maximum[g], score);
      const float keep = highest == -INFINITY ? 1.0f : exp2f(maximum[g] - highest);
      const float weight = highest == -INFINITY ? 0.0f : exp2f(score - highest);
      maximum[g] = highest;
      total[g] = total[g] * keep + weight;
      // What an idle team holds is its own unused row: finite or not, it has no weight.
      if (r.valid) scale_add(out[g], keep, weight * r.value_scale, r.value);
    }
  }

  // Teams of a warp, warps of the block, blocks of the cluster.
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    const float other = __shfl_xor_sync(kFullWarp, maximum[g], 16);
    const float highest = fmaxf(maximum[g], other);
    const float mine = highest == -INFINITY ? 0.0f : exp2f(maximum[g] - highest);
    total[g] *= mine;
    total[g] += __shfl_xor_sync(kFullWarp, total[g], 16);
#pragma unroll
    for (int i = 0; i < Piece<kDim>::kCount; ++i) {
      float4& o = out[g].v[i];
      o.x *= mine, o.y *= mine, o.z *= mine, o.w *= mine;
      o.x += __shfl_xor_sync(kFullWarp, o.x, 16);
      o.y += __shfl_xor_sync(kFullWarp, o.y, 16);
      o.z += __shfl_xor_sync(kFullWarp, o.z, 16);
      o.w += __shfl_xor_sync(kFullWarp, o.w, 16);
      if (lane < 16) *reinterpret_cast<float4*>(&warps[warp].output[g][i * 64 + lane * 4]) = o;
    }
    if (lane == 0) {
      warps[warp].maximum[g] = highest;
      warps[warp].total[g] = total[g];
    }
  }
  __syncthreads();
  // Adds up `parts` of one output element; its maximum and total too.
  const auto combine = [&](const Part* parts, int number, int g, int j, float* top, float* whole) {
    float highest = -INFINITY;
#pragma unroll 1
    for (int w = 0; w < number; ++w) highest = fmaxf(highest, parts[w].maximum[g]);
    float sum = 0;
    float weight = 0;
#pragma unroll 1
    for (int w = 0; w < number; ++w) {
      const float m = parts[w].maximum[g];
      const float factor = m == -INFINITY ? 0.0f : exp2f(m - highest);
      sum += factor * parts[w].output[g][j];
      weight += factor * parts[w].total[g];
    }
    *top = highest;
    *whole = weight;
    return sum;
  };
  Part* destination = received + split;
#if __CUDA_ARCH__ >= 900
  if (splits > 1) {
    cluster_wait();
    destination = cg::this_cluster().map_shared_rank(destination, 0);
  }
#endif
#pragma unroll 1
  for (int e = tid; e < count; e += kThreads) {
    const int g = e / kDim;
    float top = 0;
    float whole = 0;
    destination->output[g][e % kDim] = combine(warps, kWarps, g, e % kDim, &top, &whole);
    if (e % kDim == 0) {
      destination->maximum[g] = top;
      destination->total[g] = whole;
    }
  }
#if __CUDA_ARCH__ >= 900
  if (splits > 1) {
    cluster_arrive();
    if (split != 0) return;
    cluster_wait();
  } else
#endif
  {
    __syncthreads();
  }
  copy_wait<0>();
  auto* y = reinterpret_cast<half*>(a.y) + static_cast<int64_t>(row) * a.y_stride + head * count;
  float* result = &warps[0].output[0][0];  // the warps' parts have been read
#pragma unroll 1
  for (int e = tid; e < count; e += kThreads) {
    float top = 0;
    float whole = 0;
    const float sum = combine(received, splits, e / kDim, e % kDim, &top, &whole);
    const float value = sum / whole;
    result[e] = value;
    y[e] = __float2half_rn(fminf(fmaxf(value, -65504.0f), 65504.0f));
  }
  if (a.next.width > 0) {
    __syncthreads();
    project_outputs<kThreads>(
        result, count, p.a_in_shared != 0 ? reinterpret_cast<const int8_t*>(table) : next_a,
        a.next.weight == nullptr ? nullptr : a.next.weight + head * count, a.next.width, share,
        a.next.partials + (static_cast<int64_t>(row) * a.kv_heads + head) * a.next.width);
  }
}

}  // namespace

bool decode_attention_supports(int32_t heads, int32_t kv_heads, int32_t head_dim) {
  return (head_dim == 64 || head_dim == 128) && heads % kv_heads == 0 && heads / kv_heads <= 8;
}

void decode_attention(const DecodeAttentionArgs& args, int32_t multiprocessors, Stream stream) {
  if (args.m == 0) return;
  int device = 0;
  int major = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  unsigned splits = 1;
  if (major >= 9 && args.splits > 0)
    splits = static_cast<unsigned>(args.splits);
  else if (major >= 9)
    while (splits < 8 &&
           static_cast<int>(splits) * 2 * args.m * args.kv_heads <= 2 * multiprocessors)
      splits *= 2;
  const int group = args.heads / args.kv_heads;
  const auto page_size = static_cast<unsigned>(args.cache.page_size);
  if (page_size == 0 || (page_size & (page_size - 1)) != 0)
    throw std::invalid_argument("decode attention: pages of a power of two tokens expected");
  const int part = ((group * args.head_dim + 2 * group) * 4 + 15) / 16 * 16;  // sizeof(Partial)
  const int bytes = group * args.head_dim * args.next.width;
  const int in_shared = bytes > 0 && bytes <= 32 * 1024 ? 1 : 0;
  const LaunchShape shape{
      .grid = dim3(splits, static_cast<unsigned>(args.kv_heads), static_cast<unsigned>(args.m)),
      .block = kThreads,
      .shared_bytes = static_cast<size_t>((kWarps + static_cast<int>(splits)) * part +
                                          (in_shared != 0 ? bytes : 0)),
      .stream = stream,
      .cluster = splits};
  const auto at = std::source_location::current();
  const AttentionParams params{args, static_cast<int32_t>(std::countr_zero(page_size)), in_shared};
  dispatch<64, 128>(args.head_dim, [&](auto dim) {
    dispatch<1, 2, 3, 4, 5, 6, 7, 8>(group, [&](auto heads) {
      if (args.cache.type == DType::kF32)
        launch(attention_kernel<float, dim(), heads()>, shape, at, params);
      else if (args.cache.type == DType::kF16)
        launch(attention_kernel<half, dim(), heads()>, shape, at, params);
      else
        launch(attention_kernel<int8_t, dim(), heads()>, shape, at, params);
    });
  });
}

}  // namespace spear::gpu
