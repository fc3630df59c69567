// The reverse of dense attention. Probabilities are made again from the kept log-sum-exp:
//   P = exp(scale·q·k − lse),  D = dy·y (per row),  dS = P ⊙ (dy·v − D)
//   dq = scale·dS·k      one block a tile of queries, walking keys
//   dv = Pᵀ·dy, dk = scale·dSᵀ·q      one block a tile of keys of one KV head, walking its query
//   heads and queries
// so every sum has one owner and a fixed order.
#include "spear/kernels/gpu/attention_tile.cuh"
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"

namespace spear::gpu {
namespace {

size_t tile_bytes(int64_t d) {
  return sizeof(float) *
         static_cast<size_t>(4 * kTile * (d + 1) + 2 * kTile * (kTile + 1) + 2 * kTile);
}

struct Tiles {  // shared memory of both kernels
  float *q, *k, *v, *dy, *p, *ds, *lse, *dots;
  __device__ explicit Tiles(int d) {
    extern __shared__ float memory[];
    q = memory;
    k = q + kTile * (d + 1);
    v = k + kTile * (d + 1);
    dy = v + kTile * (d + 1);
    p = dy + kTile * (d + 1);
    ds = p + kTile * (kTile + 1);
    lse = ds + kTile * (kTile + 1);
    dots = lse + kTile;
  }
};

struct Place {  // of one (batch, head)
  const DenseAttentionBackwardArgs& a;
  int64_t batch, head, kv_head;
  __device__ int64_t q_row(int64_t i) const {
    return ((batch * a.forward.length + i) * a.forward.heads + head) * a.forward.head_dim;
  }
  __device__ int64_t kv_row(int64_t j) const {
    return ((batch * a.forward.length + j) * a.forward.kv_heads + kv_head) * a.forward.head_dim;
  }
  __device__ int64_t scalar(int64_t i) const {
    return (batch * a.forward.heads + head) * a.forward.length + i;
  }
};

__device__ void load_queries(const Tiles& m, const Place& at, const float* row_dots, int64_t first,
                             int d) {
  const DenseAttentionArgs& f = at.a.forward;
  const int64_t rows = f.length - first;
  load_tile(m.q, rows, d, 1.0f, [&](int i) { return f.q + at.q_row(first + i); });
  load_tile(m.dy, rows, d, 1.0f, [&](int i) { return at.a.dy + at.q_row(first + i); });
  if (threadIdx.x < kTile) {
    const bool inside = static_cast<int64_t>(threadIdx.x) < rows;
    m.lse[threadIdx.x] = inside ? f.log_sum[at.scalar(first + threadIdx.x)] : 0.0f;
    m.dots[threadIdx.x] = inside ? row_dots[at.scalar(first + threadIdx.x)] : 0.0f;
  }
}

__device__ void load_keys(const Tiles& m, const Place& at, int64_t first, int d) {
  const DenseAttentionArgs& f = at.a.forward;
  load_tile(m.k, f.length - first, d, 1.0f, [&](int i) { return f.k + at.kv_row(first + i); });
  load_tile(m.v, f.length - first, d, 1.0f, [&](int i) { return f.v + at.kv_row(first + i); });
}

// Fills p and ds of queries first_row … against keys first_key …
__device__ void scores(const Tiles& m, const DenseAttentionArgs& f, int64_t first_row,
                       int64_t first_key, int d, const TileThread& t) {
  float s[2][2];
  float dp[2][2];
  tile_product(m.q, m.k, d, t, s);
  tile_product(m.dy, m.v, d, t, dp);
  for (int r = 0; r < 2; ++r)
    for (int c = 0; c < 2; ++c) {
      const int row = 2 * t.ty + r;
      const int key = t.tx + 16 * c;
      const bool seen = first_key + key <= first_row + row && first_row + row < f.length;
      const float p = seen ? expf(s[r][c] * f.scale - m.lse[row]) : 0.0f;
      m.p[row * (kTile + 1) + key] = p;
      m.ds[row * (kTile + 1) + key] = p * (dp[r][c] - m.dots[row]) * f.scale;
    }
}

__device__ void store(float* base, int64_t rows, int d, const TileThread& t,
                      const float (&acc)[2][kMaxColumns], int64_t stride) {
  for (int r = 0; r < 2; ++r) {
    if (2 * t.ty + r >= rows) continue;
    for (int c = 0; c < kMaxColumns && c * 16 + t.tx < d; ++c)
      base[(2 * t.ty + r) * stride + c * 16 + t.tx] = acc[r][c];
  }
}

__global__ void query_kernel(const DenseAttentionBackwardArgs a, const float* row_dots) {
  const DenseAttentionArgs& f = a.forward;
  const int d = static_cast<int>(f.head_dim);
  const Tiles m(d);
  const TileThread t;
  const int64_t head = blockIdx.y;
  const Place at{a, static_cast<int64_t>(blockIdx.z), head, head / (f.heads / f.kv_heads)};
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile;
  load_queries(m, at, row_dots, first, d);
  float dq[2][kMaxColumns] = {};
  for (int64_t key = 0; key < f.length && key < first + kTile; key += kTile) {
    __syncthreads();
    load_keys(m, at, key, d);
    __syncthreads();
    scores(m, f, first, key, d, t);
    __syncthreads();
    tile_accumulate(m.ds, m.k, d, t, dq);
  }
  store(a.dq + at.q_row(first), f.length - first, d, t, dq, f.heads * f.head_dim);
}

__global__ void key_kernel(const DenseAttentionBackwardArgs a, const float* row_dots) {
  const DenseAttentionArgs& f = a.forward;
  const int d = static_cast<int>(f.head_dim);
  const Tiles m(d);
  const TileThread t;
  const int64_t kv_head = blockIdx.y;
  const int64_t group = f.heads / f.kv_heads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile;
  Place at{a, static_cast<int64_t>(blockIdx.z), kv_head * group, kv_head};
  load_keys(m, at, first, d);
  float dk[2][kMaxColumns] = {};
  float dv[2][kMaxColumns] = {};
  for (int64_t g = 0; g < group; ++g) {
    at.head = kv_head * group + g;
    for (int64_t row = first; row < f.length; row += kTile) {
      __syncthreads();
      load_queries(m, at, row_dots, row, d);
      __syncthreads();
      scores(m, f, row, first, d, t);
      __syncthreads();
      tile_accumulate_transposed(m.p, m.dy, d, t, dv);
      tile_accumulate_transposed(m.ds, m.q, d, t, dk);
    }
  }
  store(a.dk + at.kv_row(first), f.length - first, d, t, dk, f.kv_heads * f.head_dim);
  store(a.dv + at.kv_row(first), f.length - first, d, t, dv, f.kv_heads * f.head_dim);
}

// D of each row: one warp a row.
__global__ void row_dot_kernel(const DenseAttentionBackwardArgs a, float* row_dots) {
  const DenseAttentionArgs& f = a.forward;
  const int64_t row =
      (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;  // (batch, i, head)
  if (row >= f.batch * f.length * f.heads) return;
  float sum = 0;
  for (int64_t j = threadIdx.x % 32; j < f.head_dim; j += 32)
    sum += a.dy[row * f.head_dim + j] * f.y[row * f.head_dim + j];
  sum = warp_reduce(sum, Plus{});
  if (threadIdx.x % 32 != 0) return;
  const int64_t head = row % f.heads;
  const int64_t i = row / f.heads % f.length;
  const int64_t batch = row / (f.heads * f.length);
  row_dots[(batch * f.heads + head) * f.length + i] = sum;
}

}  // namespace

void dense_attention_backward(const DenseAttentionBackwardArgs& args, float* row_dots,
                              Stream stream) {
  const DenseAttentionArgs& f = args.forward;
  const int64_t rows = f.batch * f.length * f.heads;
  row_dot_kernel<<<static_cast<unsigned>((rows * 32 + 255) / 256), 256, 0, stream>>>(args,
                                                                                     row_dots);
  check_launch();
  const size_t bytes = tile_bytes(f.head_dim);
  check(cudaFuncSetAttribute(query_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)));
  check(cudaFuncSetAttribute(key_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)));
  const auto tiles = static_cast<unsigned>((f.length + kTile - 1) / kTile);
  const auto batch = static_cast<unsigned>(f.batch);
  query_kernel<<<dim3(tiles, static_cast<unsigned>(f.heads), batch), kTileThreads, bytes, stream>>>(
      args, row_dots);
  check_launch();
  key_kernel<<<dim3(tiles, static_cast<unsigned>(f.kv_heads), batch), kTileThreads, bytes,
               stream>>>(args, row_dots);
  check_launch();
}

}  // namespace spear::gpu
