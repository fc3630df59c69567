// The product of builds that found neither library: headers only, any processor.
#include <eigen3/Eigen/Core>
#include <vector>

#include "spear/kernels/cpu/gemm_few_rows.h"
#include "spear/kernels/cpu/gemm_slices.h"
#include "spear/kernels/cpu/gemm_tables.h"

namespace spear::cpu {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
using MutableView = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;

// Depth of a tile that is widened from BF16 at a time, so that the copies stay in a cache.
constexpr int64_t kWidenedDepth = 256;

// A stored [rows, columns] matrix as floats: in place, or widened into `copy`.
View as_floats(const void* data, DType type, int64_t rows, int64_t columns, int64_t stride,
               std::vector<float>& copy) {
  if (type == DType::kF32)
    return {static_cast<const float*>(data), rows, columns, Eigen::OuterStride<>(stride)};
  copy.resize(static_cast<size_t>(rows * columns));
  const auto* bits = static_cast<const uint16_t*>(data);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      copy[i * columns + j] = float_from_bf16(bits[i * stride + j]);
  return {copy.data(), rows, columns, Eigen::OuterStride<>(columns)};
}

void add_product(const GemmArgs& g, const View& a, const View& b, MutableView& c) {
  if (g.transpose_a && g.transpose_b) {
    c.noalias() += g.alpha * (a.transpose() * b.transpose());
  } else if (g.transpose_a) {
    c.noalias() += g.alpha * (a.transpose() * b);
  } else if (g.transpose_b) {
    c.noalias() += g.alpha * (a * b.transpose());
  } else {
    c.noalias() += g.alpha * (a * b);
  }
}

void run_slice(const GemmArgs& g) {
  scale_output(g);
  MutableView c(g.c, g.m, g.n, Eigen::OuterStride<>(g.ldc));
  std::vector<float> a_copy;
  std::vector<float> b_copy;
  const int64_t step = g.a_type == DType::kF32 ? g.k : kWidenedDepth;
  for (int64_t p = 0; p < g.k; p += step) {
    const int64_t depth = std::min(step, g.k - p);
    const void* a = advanced(g.a, g.a_type, g.transpose_a ? p * g.lda : p);
    const void* b = advanced(g.b, g.b_type, g.transpose_b ? p : p * g.ldb);
    const View a_view = g.transpose_a ? as_floats(a, g.a_type, depth, g.m, g.lda, a_copy)
                                      : as_floats(a, g.a_type, g.m, depth, g.lda, a_copy);
    const View b_view = g.transpose_b ? as_floats(b, g.b_type, g.n, depth, g.ldb, b_copy)
                                      : as_floats(b, g.b_type, depth, g.n, g.ldb, b_copy);
    add_product(g, a_view, b_view, c);
  }
}

bool supports(const GemmArgs& g) {
  return g.a_type == g.b_type && (g.a_type == DType::kF32 || g.a_type == DType::kBF16);
}

void run(const GemmArgs& g, ThreadPool* pool) {
  if (g.m == 0 || g.n == 0) return;
  if (has_few_rows(g)) return run_few_rows(g, pool, simd_loops());
  run_in_slices(g, pool, run_slice);
}

}  // namespace

GemmKernel gemm_eigen() {
  return {.name = "cpu.eigen", .supports = supports, .run = run};
}

}  // namespace spear::cpu
