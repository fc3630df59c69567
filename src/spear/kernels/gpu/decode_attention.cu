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

template <class T, int kDim, int kGroup>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(const __grid_constant__ DecodeAttentionArgs a, int a_in_shared) {
  extern __shared__ __align__(16) unsigned char table[];  // of next.a, where it fits
  __shared__ __align__(16) float q[kGroup][kDim];
  __shared__ __align__(16) float own_key[kDim];
  __shared__ __align__(16) float own_value[kDim];
  __shared__ __align__(16) float outputs[kWarps][kGroup][kDim];
  __shared__ float maxima[kWarps][kGroup];
  __shared__ float totals[kWarps][kGroup];
  __shared__ __align__(16) float block_output[kGroup][kDim];
  __shared__ float block_maximum[kGroup];
  __shared__ float block_total[kGroup];
  __shared__ float share[kThreads];
  launch_dependents();
  const int tid = static_cast<int>(threadIdx.x);
  const int lane = tid % 32;
  const int warp = tid / 32;
  const int team = tid / 16;
  const int split = static_cast<int>(blockIdx.x);
  const int splits = static_cast<int>(gridDim.x);
  const int head = static_cast<int>(blockIdx.y);  // of keys and values
  const int row = static_cast<int>(blockIdx.z);
  const int context = a.tables.contexts[row];
  const int32_t* pages = a.tables.pages + a.tables.page_begin[row];
  const int page_size = static_cast<int>(a.cache.page_size);
  const auto cached = [&](int j) {  // a row of the cache
    return (static_cast<int64_t>(pages[j / page_size]) * a.kv_heads + head) * page_size +
           j % page_size;
  };
  auto* keys = static_cast<T*>(a.cache.keys);
  auto* values = static_cast<T*>(a.cache.values);
  const int first = static_cast<int>(static_cast<int64_t>(context) * split / splits);
  const int last = static_cast<int>(static_cast<int64_t>(context) * (split + 1) / splits);
  for (int j = first + team; j < min(last, first + 8 * kTeams); j += kTeams) {
    constexpr int kLine = 128 / static_cast<int>(sizeof(T));
    if (lane % 16 * kLine < kDim) {
      fetch_to_l2(keys + cached(j) * kDim + lane % 16 * kLine);
      fetch_to_l2(values + cached(j) * kDim + lane % 16 * kLine);
    }
  }
  const int count = kGroup * kDim;
  const int8_t* next_a = a.next.a + static_cast<int64_t>(head) * count * a.next.width;
  if (split == 0 && a_in_shared) {
    for (int i = tid * 16; i < count * a.next.width; i += kThreads * 16)
      copy_async16(table + i, next_a + i);
    copy_commit();
  }

  wait_for_predecessor();
  const int width = (a.heads + 2 * a.kv_heads) * kDim;
  const float* qkv = a.qkv + static_cast<int64_t>(row) * width;
  const float* angles = a.angles + row * kDim;
  for (int g = warp; g < kGroup + 2; g += kWarps) {
    if (g < kGroup) {
      prepare_head<kDim>(qkv + (head * kGroup + g) * kDim, a.q_norm, a.eps, angles,
                         kLog2e * rsqrtf(static_cast<float>(kDim)), q[g], lane);
    } else if (split == 0) {
      const int64_t to = cached(context);
      if (g == kGroup) {
        prepare_head<kDim>(qkv + (a.heads + head) * kDim, a.k_norm, a.eps, angles, 1.0f, own_key,
                           lane);
        __syncwarp();
        store_row<kDim>(own_key, a.append ? keys + to * kDim : nullptr, a.cache.key_scales + to,
                        lane);
      } else {
        for (int j = lane; j < kDim; j += 32)
          own_value[j] = load_cg(qkv + (a.heads + a.kv_heads + head) * kDim + j);
        __syncwarp();
        store_row<kDim>(own_value, a.append ? values + to * kDim : nullptr,
                        a.cache.value_scales + to, lane);
      }
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
  // Scales are of the stored row, 1 but for INT8.
  const auto take = [&](const Piece<kDim>& key, const Piece<kDim>& value, float key_scale,
                        float value_scale, bool valid) {
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      float score = dot(query[g], key);
#pragma unroll
      for (int offset = 8; offset > 0; offset /= 2)
        score += __shfl_xor_sync(kFullWarp, score, offset);
      if (!valid) continue;
      score *= key_scale;
      const float highest = fmaxf(maximum[g], score);
      const float keep = exp2f(maximum[g] - highest);
      const float p = exp2f(score - highest);
      maximum[g] = highest;
      total[g] = total[g] * keep + p;
      scale_add(out[g], keep, p * value_scale, value);
    }
  };
  // Both teams of a warp take every step, so that shuffles find all lanes.
  const int steps = (last - first + kTeams - 1) / kTeams;
#pragma unroll 2
  for (int s = 0; s < steps; ++s) {
    const int j = first + s * kTeams + team;
    const bool valid = j < last;
    const int64_t from = cached(valid ? j : first);
    const Piece<kDim> key = load_piece<kDim>(keys + from * kDim, lane % 16);
    const Piece<kDim> value = load_piece<kDim>(values + from * kDim, lane % 16);
    if constexpr (sizeof(T) == 1)
      take(key, value, a.cache.key_scales[from], a.cache.value_scales[from], valid);
    else
      take(key, value, 1.0f, 1.0f, valid);
  }
  if (split == 0 && warp == 0)
    take(load_piece<kDim>(own_key, lane % 16), load_piece<kDim>(own_value, lane % 16), 1.0f, 1.0f,
         lane < 16);

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
      if (lane < 16) *reinterpret_cast<float4*>(&outputs[warp][g][i * 64 + lane * 4]) = o;
    }
    if (lane == 0) {
      maxima[warp][g] = highest;
      totals[warp][g] = total[g];
    }
  }
  __syncthreads();
  for (int e = tid; e < count; e += kThreads) {
    const int g = e / kDim;
    float highest = -INFINITY;
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, maxima[w][g]);
    float sum = 0;
    float whole = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float factor = maxima[w][g] == -INFINITY ? 0.0f : exp2f(maxima[w][g] - highest);
      sum += factor * outputs[w][g][e % kDim];
      whole += factor * totals[w][g];
    }
    block_output[g][e % kDim] = sum;
    if (e % kDim == 0) {
      block_maximum[g] = highest;
      block_total[g] = whole;
    }
  }
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  if (splits > 1) {
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
    if (split == 0) {
      for (int e = tid; e < count; e += kThreads) {
        const int g = e / kDim;
        float highest = block_maximum[g];
        for (int s = 1; s < splits; ++s)
          highest = fmaxf(highest, *cluster.map_shared_rank(&block_maximum[g], s));
        float sum = 0;
        float whole = 0;
        for (int s = 0; s < splits; ++s) {
          const float m = *cluster.map_shared_rank(&block_maximum[g], s);
          const float factor = m == -INFINITY ? 0.0f : exp2f(m - highest);
          sum += factor * *cluster.map_shared_rank(&block_output[g][e % kDim], s);
          whole += factor * *cluster.map_shared_rank(&block_total[g], s);
        }
        outputs[0][g][e % kDim] = sum / whole;
      }
    }
    cluster.sync();
    if (split != 0) return;
  } else
#endif
  {
    for (int e = tid; e < count; e += kThreads)
      outputs[0][e / kDim][e % kDim] = block_output[e / kDim][e % kDim] / block_total[e / kDim];
  }
  if (a_in_shared) copy_wait<0>();
  __syncthreads();
  auto* y = reinterpret_cast<half*>(a.y) + static_cast<int64_t>(row) * a.y_stride + head * count;
  const float* result = &outputs[0][0][0];
  for (int e = tid; e < count; e += kThreads)
    y[e] = __float2half_rn(fminf(fmaxf(result[e], -65504.0f), 65504.0f));
  if (a.next.width > 0)
    project_outputs<kThreads>(
        result, count, a_in_shared ? reinterpret_cast<const int8_t*>(table) : next_a,
        a.next.weight == nullptr ? nullptr : a.next.weight + head * count, a.next.width, share,
        a.next.partials + (static_cast<int64_t>(row) * a.kv_heads + head) * a.next.width);
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
  if (major >= 9)
    while (splits < 8 &&
           static_cast<int>(splits) * 2 * args.m * args.kv_heads <= 2 * multiprocessors)
      splits *= 2;
  const int group = args.heads / args.kv_heads;
  const int bytes = group * args.head_dim * args.next.width;
  const int in_shared = bytes > 0 && bytes <= 32 * 1024 ? 1 : 0;
  const LaunchShape shape{
      .grid = dim3(splits, static_cast<unsigned>(args.kv_heads), static_cast<unsigned>(args.m)),
      .block = kThreads,
      .shared_bytes = static_cast<size_t>(in_shared != 0 ? bytes : 0),
      .stream = stream,
      .cluster = splits};
  const auto at = std::source_location::current();
  dispatch<64, 128>(args.head_dim, [&](auto dim) {
    dispatch<1, 2, 3, 4, 5, 6, 7, 8>(group, [&](auto heads) {
      if (args.cache.type == DType::kF32)
        launch(attention_kernel<float, dim(), heads()>, shape, at, args, in_shared);
      else if (args.cache.type == DType::kF16)
        launch(attention_kernel<half, dim(), heads()>, shape, at, args, in_shared);
      else
        launch(attention_kernel<int8_t, dim(), heads()>, shape, at, args, in_shared);
    });
  });
}

}  // namespace spear::gpu
