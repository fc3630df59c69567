// Causal grouped-query attention, forward: over pages (any mix of prefill and decode rows) and over
// dense sequences (training, which keeps the log-sum-exp). FP32 with online softmax; one block a
// tile of 32 query rows of one head.
#include <cmath>

#include "spear/kernels/gpu/attention_tile.cuh"
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"

namespace spear::gpu {
namespace {

size_t tile_bytes(int64_t d) {
  return sizeof(float) * static_cast<size_t>(3 * kTile * (d + 1) + kTile * (kTile + 1));
}

// One tile of queries against keys 0 … first + rows − 1. key(j) and value(j) give rows; query(i),
// out(i) likewise.
template <class Query, class Key, class Value, class Out>
__device__ void attend(int64_t first, int64_t rows, int d, float scale, Query query, Key key,
                       Value value, Out out, float* log_sum) {
  extern __shared__ float memory[];
  float* q = memory;
  float* k = q + kTile * (d + 1);
  float* v = k + kTile * (d + 1);
  float* p = v + kTile * (d + 1);
  const TileThread t;
  load_tile(q, rows, d, scale, query);
  float acc[2][kMaxColumns] = {};
  float top[2] = {-INFINITY, -INFINITY};  // running maximum and sum of each of this thread's rows
  float sum[2] = {0.0f, 0.0f};
  const int64_t last_key = first + rows;  // exclusive
  for (int64_t base = 0; base < last_key; base += kTile) {
    __syncthreads();
    load_tile(k, last_key - base, d, 1.0f, [&](int i) { return key(base + i); });
    load_tile(v, last_key - base, d, 1.0f, [&](int i) { return value(base + i); });
    __syncthreads();
    float s[2][2];
    tile_product(q, k, d, t, s);
    for (int r = 0; r < 2; ++r) {
      const int64_t position = first + 2 * t.ty + r;
      for (int c = 0; c < 2; ++c)
        if (base + t.tx + 16 * c > position) s[r][c] = -INFINITY;
      // The 16 threads of a row are half a warp: their maximum and sum need no shared memory.
      float highest = fmaxf(s[r][0], s[r][1]);
      for (int o = 8; o > 0; o /= 2)
        highest = fmaxf(highest, __shfl_xor_sync(kFullWarp, highest, o));
      const float new_top = fmaxf(top[r], highest);
      const float keep = new_top == -INFINITY ? 1.0f : expf(top[r] - new_top);
      float part = 0.0f;
      for (int c = 0; c < 2; ++c) {
        const float e = s[r][c] == -INFINITY ? 0.0f : expf(s[r][c] - new_top);
        p[(2 * t.ty + r) * (kTile + 1) + t.tx + 16 * c] = e;
        part += e;
      }
      for (int o = 8; o > 0; o /= 2) part += __shfl_xor_sync(kFullWarp, part, o);
      sum[r] = sum[r] * keep + part;
      top[r] = new_top;
      for (int c = 0; c < kMaxColumns; ++c) acc[r][c] *= keep;
    }
    __syncthreads();
    tile_accumulate(p, v, d, t, acc);
  }
  for (int r = 0; r < 2; ++r) {
    const int row = 2 * t.ty + r;
    if (row >= rows) continue;
    float* y = out(row);
    for (int c = 0; c < kMaxColumns && c * 16 + t.tx < d; ++c)
      y[c * 16 + t.tx] = acc[r][c] / sum[r];
    if (log_sum != nullptr && t.tx == 0) log_sum[row] = top[r] + logf(sum[r]);
  }
}

__device__ int64_t page_row(const KvLayerView& cache, const int32_t* pages, int64_t kv_heads,
                            int64_t d, int64_t head, int64_t position) {
  const int64_t page = pages[position / cache.page_size];
  return ((page * kv_heads + head) * cache.page_size + position % cache.page_size) * d;
}

__global__ void paged_kernel(const AttentionArgs a) {
  const AttentionSequence s = a.sequences[blockIdx.z];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTile;
  if (begin >= s.rows) return;
  const int64_t rows = s.rows - begin < kTile ? s.rows - begin : kTile;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  const int64_t d = a.head_dim;
  const auto offset = [&](int64_t row) {
    return ((s.first_row + begin + row) * a.heads + head) * d;
  };
  const auto cached = [&](int64_t j) {
    return page_row(a.cache, s.pages, a.kv_heads, d, kv_head, j);
  };
  attend(
      s.context + begin, rows, static_cast<int>(d), a.scale, [&](int i) { return a.q + offset(i); },
      [&](int64_t j) { return static_cast<const float*>(a.cache.keys) + cached(j); },
      [&](int64_t j) { return static_cast<const float*>(a.cache.values) + cached(j); },
      [&](int i) { return a.y + offset(i); }, nullptr);
}

__global__ void dense_kernel(const DenseAttentionArgs a) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t rows = a.length - begin < kTile ? a.length - begin : kTile;
  const int64_t head = blockIdx.y;
  const int64_t batch = blockIdx.z;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  const int64_t d = a.head_dim;
  const auto q_row = [&](int64_t i) {
    return ((batch * a.length + begin + i) * a.heads + head) * d;
  };
  const auto kv_row = [&](int64_t j) {
    return ((batch * a.length + j) * a.kv_heads + kv_head) * d;
  };
  attend(
      begin, rows, static_cast<int>(d), a.scale, [&](int i) { return a.q + q_row(i); },
      [&](int64_t j) { return a.k + kv_row(j); }, [&](int64_t j) { return a.v + kv_row(j); },
      [&](int i) { return a.y + q_row(i); },
      a.log_sum + (batch * a.heads + head) * a.length + begin);
}

// One thread an element of a row; blocks: (rows, sequences).
__global__ void append_kernel(const KvAppendArgs a) {
  const AttentionSequence s = a.sequences[blockIdx.y];
  const int64_t row = blockIdx.x;
  if (row >= s.rows) return;
  const int64_t width = a.kv_heads * a.head_dim;
  for (int64_t e = threadIdx.x; e < width; e += blockDim.x) {
    const int64_t to =
        page_row(a.cache, s.pages, a.kv_heads, a.head_dim, e / a.head_dim, s.context + row) +
        e % a.head_dim;
    static_cast<float*>(a.cache.keys)[to] = a.k[(s.first_row + row) * width + e];
    static_cast<float*>(a.cache.values)[to] = a.v[(s.first_row + row) * width + e];
  }
}

unsigned tiles(int64_t rows) {
  return static_cast<unsigned>((rows + kTile - 1) / kTile);
}

template <class Kernel>
void allow(Kernel kernel, size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)));
}

}  // namespace

void kv_append(const KvAppendArgs& args, int64_t max_rows, Stream stream) {
  if (args.sequence_count == 0) return;
  const dim3 grid(static_cast<unsigned>(max_rows), static_cast<unsigned>(args.sequence_count));
  append_kernel<<<grid, 128, 0, stream>>>(args);
  check_launch();
}

void attention(const AttentionArgs& args, int64_t max_rows, Stream stream) {
  if (args.sequence_count == 0) return;
  const size_t bytes = tile_bytes(args.head_dim);
  allow(paged_kernel, bytes);
  const dim3 grid(tiles(max_rows), static_cast<unsigned>(args.heads),
                  static_cast<unsigned>(args.sequence_count));
  paged_kernel<<<grid, kTileThreads, bytes, stream>>>(args);
  check_launch();
}

void dense_attention(const DenseAttentionArgs& args, Stream stream) {
  const size_t bytes = tile_bytes(args.head_dim);
  allow(dense_kernel, bytes);
  const dim3 grid(tiles(args.length), static_cast<unsigned>(args.heads),
                  static_cast<unsigned>(args.batch));
  dense_kernel<<<grid, kTileThreads, bytes, stream>>>(args);
  check_launch();
}

}  // namespace spear::gpu
