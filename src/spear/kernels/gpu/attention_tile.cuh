// The tile that every attention kernel here is made of: 32 query rows against 32 keys, 256 threads
// as 16 x 16, each with 2 x 2 scores and two rows of outputs. Rows in shared memory are padded by
// one float against bank conflicts.
//
//        keys →   tx tx+16            thread (ty, tx) owns scores (2ty, 2ty+1) x (tx, tx+16)
//   rows  2ty   [ s00 s01 ]           and output columns tx, tx+16, … of its two rows
//    ↓    2ty+1 [ s10 s11 ]
#pragma once

#include <cstdint>

#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {

constexpr int kTile = 32;  // query rows, and keys, of a tile
constexpr int kTileThreads = 256;
constexpr int kMaxColumns = 16;  // head_dim / 16 at most: head_dim ≤ 256

struct TileThread {
  int tx, ty;
  __device__ TileThread()
      : tx(static_cast<int>(threadIdx.x % 16)), ty(static_cast<int>(threadIdx.x / 16)) {}
};

// scores[2][2] = rows of a · rows of b over d, both [kTile][d + 1] in shared memory.
__device__ inline void tile_product(const float* a, const float* b, int d, const TileThread& t,
                                    float (&s)[2][2]) {
  s[0][0] = s[0][1] = s[1][0] = s[1][1] = 0.0f;
  const float* a0 = a + 2 * t.ty * (d + 1);
  const float* a1 = a0 + d + 1;
  const float* b0 = b + t.tx * (d + 1);
  const float* b1 = b0 + 16 * (d + 1);
  for (int j = 0; j < d; ++j) {
    s[0][0] += a0[j] * b0[j];
    s[0][1] += a0[j] * b1[j];
    s[1][0] += a1[j] * b0[j];
    s[1][1] += a1[j] * b1[j];
  }
}

// out[row][column c·16 + tx] += Σ_j p[row][j] · v[j][column], p [kTile][kTile + 1], v [kTile][d +
// 1]
__device__ inline void tile_accumulate(const float* p, const float* v, int d, const TileThread& t,
                                       float (&out)[2][kMaxColumns]) {
  const float* p0 = p + 2 * t.ty * (kTile + 1);
  const float* p1 = p0 + kTile + 1;
  for (int j = 0; j < kTile; ++j) {
    const float a = p0[j];
    const float b = p1[j];
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c) {
      const int column = c * 16 + t.tx;
      if (column >= d) break;
      const float value = v[j * (d + 1) + column];
      out[0][c] += a * value;
      out[1][c] += b * value;
    }
  }
}

// The same with p transposed: out[row] += Σ_j p[j][row] · v[j]
__device__ inline void tile_accumulate_transposed(const float* p, const float* v, int d,
                                                  const TileThread& t,
                                                  float (&out)[2][kMaxColumns]) {
  for (int j = 0; j < kTile; ++j) {
    const float a = p[j * (kTile + 1) + 2 * t.ty];
    const float b = p[j * (kTile + 1) + 2 * t.ty + 1];
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c) {
      const int column = c * 16 + t.tx;
      if (column >= d) break;
      const float value = v[j * (d + 1) + column];
      out[0][c] += a * value;
      out[1][c] += b * value;
    }
  }
}

// Copies rows into shared memory, [kTile][d + 1]; rows at or beyond `rows` become zero. row(i)
// gives a row's address.
template <class Row>
__device__ void load_tile(float* to, int64_t rows, int d, float scale, Row row) {
  for (int e = static_cast<int>(threadIdx.x); e < kTile * d; e += kTileThreads) {
    const int i = e / d;
    const int j = e % d;
    to[i * (d + 1) + j] = i < rows ? row(i)[j] * scale : 0.0f;
  }
}

}  // namespace spear::gpu
