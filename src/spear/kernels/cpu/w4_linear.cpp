#include "spear/kernels/w4_linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "spear/base/check.h"
#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::cpu {
namespace {

constexpr int64_t kTileBytes = 256 * 1024;  // dequantized rows that share a core's cache with x
constexpr int64_t kFewRowsGrain = 64;

// u ← γ(u) ⊙ u for one token.
void apply_gate(const CompensatorView& ec, float* u, std::vector<float>& hidden) {
  if (ec.gate_hidden == 0) return;
  hidden.resize(static_cast<size_t>(ec.gate_hidden));
  for (int64_t i = 0; i < ec.gate_hidden; ++i) {
    float sum = float_from_f16(ec.b1[i]);
    for (int64_t r = 0; r < ec.rank; ++r) sum += float_from_f16(ec.w1[i * ec.rank + r]) * u[r];
    hidden[i] = std::max(sum, 0.0f);
  }
  for (int64_t r = 0; r < ec.rank; ++r) {
    float sum = float_from_f16(ec.b2[r]);
    for (int64_t i = 0; i < ec.gate_hidden; ++i)
      sum += float_from_f16(ec.w2[r * ec.gate_hidden + i]) * hidden[i];
    u[r] *= 1.0f + std::tanh(sum);
  }
}

// Few tokens: everything but the weight's codes is small and read once.
void few_tokens(const W4LinearArgs& a, HostBuffer& workspace, ThreadPool& pool,
                const SimdLoops& loops) {
  const QuantizedView& w = a.w;
  const int64_t groups = w.groups();
  const int64_t group = w.k / groups;
  const int64_t rank = a.ec.rank;
  const int64_t packed_columns = loops.packed_columns(w);
  workspace.reserve(static_cast<size_t>(a.m * (packed_columns + groups + rank) + w.k) *
                    sizeof(float));
  auto* packed = workspace.as<float>();
  float* sums = packed + a.m * packed_columns;
  loops.pack_tokens(w, a.m, a.x, packed);
  float* u = sums + a.m * groups;
  float* row = u + a.m * rank;
  for (int64_t i = 0; i < a.m * groups; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < group; ++j) sum += static_cast<double>(a.x[i * group + j]);
    sums[i] = static_cast<float>(sum);
  }
  for (int64_t r = 0; r < rank; ++r) {
    loops.expand_factor_row(a.ec, a.ec.a, a.ec.a_scales, r, w.k, 0, w.k, row);
    for (int64_t i = 0; i < a.m; ++i) u[i * rank + r] = loops.dot(row, a.x + i * w.k, w.k);
  }
  std::vector<float> hidden;
  for (int64_t i = 0; i < a.m; ++i) apply_gate(a.ec, u + i * rank, hidden);
  const QuantizedRows rows{.w = w, .m = a.m, .x = a.x, .packed = packed, .sums = sums, .y = a.y};
  pool.parallel_for(w.n, kFewRowsGrain, [&](int64_t begin, int64_t end) {
    loops.quantized_rows(rows, begin, end);
    for (int64_t i = 0; a.bias != nullptr && i < a.m; ++i)
      loops.add_scaled(1.0f, a.bias + begin, a.y + i * w.n + begin, end - begin);
    float piece[kFewRowsGrain];
    for (int64_t r = 0; r < rank; ++r) {
      for (int64_t at = begin; at < end; at += kFewRowsGrain) {
        const int64_t stop = std::min(end, at + kFewRowsGrain);
        loops.expand_factor_row(a.ec, a.ec.b, a.ec.b_scales, r, w.n, at, stop, piece);
        for (int64_t i = 0; i < a.m; ++i)
          loops.add_scaled(u[i * rank + r], piece, a.y + i * w.n + at, stop - at);
      }
    }
  });
}

// The parts of the workspace of many tokens.
struct Parts {
  std::byte* x = nullptr;         // [m, k] in the type of the product
  float* u = nullptr;             // [m, rank]
  float* factor_b = nullptr;      // [rank, n]
  std::byte* factor_a = nullptr;  // [rank, k] in the type of the product
  float* expanded = nullptr;      // [k] a thread, and the expansion of A
  std::byte* tiles = nullptr;     // [tile rows, k] a thread
};

int64_t rows_per_tile(const QuantizedView& w, size_t element, int threads) {
  const int64_t fitting = std::max<int64_t>(16, kTileBytes / (w.k * static_cast<int64_t>(element)));
  const int64_t share = (w.n + threads - 1) / threads;
  const int64_t tiles = (share + fitting - 1) / fitting;
  return std::max<int64_t>(16, ((share + tiles - 1) / tiles + 15) / 16 * 16);
}

Parts lay_out(const W4LinearArgs& a, size_t element, int64_t tile_rows, int threads,
              HostBuffer& workspace) {
  const auto rounded = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  const auto m = static_cast<size_t>(a.m);
  const auto k = static_cast<size_t>(a.w.k);
  const auto n = static_cast<size_t>(a.w.n);
  const auto rank = static_cast<size_t>(a.ec.rank);
  const auto workers = static_cast<size_t>(threads);
  const size_t sizes[] = {element == 4 ? 0 : rounded(m * k * element),
                          rounded(m * rank * 4),
                          rounded(rank * n * 4),
                          rounded(rank * k * element),
                          workers * rounded(k * 4),
                          workers * rounded(static_cast<size_t>(tile_rows) * k * element)};
  size_t total = 0;
  for (const size_t size : sizes) total += size;
  workspace.reserve(total);
  auto* at = workspace.as<std::byte>();
  Parts parts;
  parts.x = at;
  parts.u = reinterpret_cast<float*>(at += sizes[0]);
  parts.factor_b = reinterpret_cast<float*>(at += sizes[1]);
  parts.factor_a = at += sizes[2];
  parts.expanded = reinterpret_cast<float*>(at += sizes[3]);
  parts.tiles = at + sizes[4];
  return parts;
}

// u = γ(A x) ⊙ (A x) for all tokens, and B as floats.
void low_rank_inputs(const W4LinearArgs& a, const GemmArgs& shape, const Parts& parts,
                     ThreadPool& pool, const GemmKernel& gemm, const SimdLoops& loops) {
  const CompensatorView& ec = a.ec;
  const bool exact = shape.a_type == DType::kF32;
  for (int64_t r = 0; r < ec.rank; ++r) {
    float* row = exact ? reinterpret_cast<float*>(parts.factor_a) + r * a.w.k : parts.expanded;
    loops.expand_factor_row(ec, ec.a, ec.a_scales, r, a.w.k, 0, a.w.k, row);
    if (!exact) loops.to_bf16(row, reinterpret_cast<uint16_t*>(parts.factor_a) + r * a.w.k, a.w.k);
    loops.expand_factor_row(ec, ec.b, ec.b_scales, r, a.w.n, 0, a.w.n, parts.factor_b + r * a.w.n);
  }
  GemmArgs down = shape;
  down.n = ec.rank;
  down.b = parts.factor_a;
  down.c = parts.u;
  down.ldc = ec.rank;
  gemm.run(down, &pool);
  pool.parallel_for(a.m, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> hidden;
    for (int64_t i = begin; i < end; ++i) apply_gate(ec, parts.u + i * ec.rank, hidden);
  });
}

void many_tokens(const W4LinearArgs& a, bool exact, HostBuffer& workspace, ThreadPool& pool,
                 const GemmKernel& gemm, const SimdLoops& loops) {
  const QuantizedView& w = a.w;
  const size_t element = exact ? sizeof(float) : sizeof(uint16_t);
  const int64_t tile_rows = rows_per_tile(w, element, pool.size());
  const Parts parts = lay_out(a, element, tile_rows, pool.size(), workspace);
  GemmArgs shape{.m = a.m,
                 .n = w.n,
                 .k = w.k,
                 .a = a.x,
                 .lda = w.k,
                 .ldb = w.k,
                 .transpose_b = true,
                 .ldc = w.n};
  if (!exact) {
    shape.a = parts.x;
    shape.a_type = shape.b_type = DType::kBF16;
    pool.parallel_for(a.m * w.k, 16384, [&](int64_t begin, int64_t end) {
      loops.to_bf16(a.x + begin, reinterpret_cast<uint16_t*>(parts.x) + begin, end - begin);
    });
  }
  expects(gemm.supports(shape));
  if (a.ec.rank != 0) low_rank_inputs(a, shape, parts, pool, gemm, loops);
  const int64_t tiles = (w.n + tile_rows - 1) / tile_rows;
  std::atomic<int64_t> next_tile{0};
  pool.parallel_for(std::min<int64_t>(pool.size(), tiles), 1, [&](int64_t worker, int64_t) {
    std::byte* tile =
        parts.tiles + static_cast<size_t>(worker) *
                          ((static_cast<size_t>(tile_rows * w.k) * element + 63) / 64 * 64);
    float* expanded = parts.expanded + worker * ((w.k + 15) / 16 * 16);
    for (int64_t t = next_tile++; t < tiles; t = next_tile++) {
      const int64_t begin = t * tile_rows;
      const int64_t end = std::min<int64_t>(w.n, begin + tile_rows);
      if (exact) {
        loops.dequantize(w, begin, end, reinterpret_cast<float*>(tile));
      } else {
        loops.dequantize_bf16(w, begin, end, reinterpret_cast<uint16_t*>(tile), expanded);
      }
      GemmArgs product = shape;
      product.n = end - begin;
      product.b = tile;
      product.c = a.y + begin;
      gemm.run(product, nullptr);
      for (int64_t i = 0; a.bias != nullptr && i < a.m; ++i)
        loops.add_scaled(1.0f, a.bias + begin, a.y + i * w.n + begin, end - begin);
      if (a.ec.rank == 0) continue;
      gemm.run({.m = a.m,
                .n = end - begin,
                .k = a.ec.rank,
                .a = parts.u,
                .lda = a.ec.rank,
                .b = parts.factor_b + begin,
                .ldb = w.n,
                .c = a.y + begin,
                .ldc = w.n,
                .beta = 1.0f},
               nullptr);
    }
  });
}

}  // namespace

void w4_linear(const W4LinearArgs& args, bool exact, HostBuffer& workspace, ThreadPool& pool,
               const GemmKernel& gemm, const SimdLoops& loops) {
  expects(args.w.bits != 16);  // plain BF16 rows are an ordinary product
  if (args.m == 0 || args.w.n == 0) return;
  if (args.m <= kFewTokens) return few_tokens(args, workspace, pool, loops);
  many_tokens(args, exact, workspace, pool, gemm, loops);
}

void w4_linear(const W4LinearArgs& args, bool exact, HostBuffer& workspace, ThreadPool& pool,
               const GemmKernel& gemm) {
  w4_linear(args, exact, workspace, pool, gemm, simd_loops());
}

}  // namespace spear::cpu
