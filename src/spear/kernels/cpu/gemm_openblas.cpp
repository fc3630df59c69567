#include <cblas.h>

#include "spear/kernels/cpu/gemm_few_rows.h"
#include "spear/kernels/cpu/gemm_slices.h"
#include "spear/kernels/cpu/gemm_tables.h"

namespace spear::cpu {
namespace {

void run_slice(const GemmArgs& g) {
  cblas_sgemm(CblasRowMajor, g.transpose_a ? CblasTrans : CblasNoTrans,
              g.transpose_b ? CblasTrans : CblasNoTrans, static_cast<blasint>(g.m),
              static_cast<blasint>(g.n), static_cast<blasint>(g.k), g.alpha,
              static_cast<const float*>(g.a), static_cast<blasint>(g.lda),
              static_cast<const float*>(g.b), static_cast<blasint>(g.ldb), g.beta, g.c,
              static_cast<blasint>(g.ldc));
}

// Debian's build has no BF16 product.
bool supports(const GemmArgs& g) {
  return g.a_type == DType::kF32 && g.b_type == DType::kF32;
}

void run(const GemmArgs& g, ThreadPool* pool) {
  if (g.m == 0 || g.n == 0) return;
  if (has_few_rows(g)) return run_few_rows(g, pool, simd_loops());
  if (g.k == 0) return scale_output(g);
  openblas_set_num_threads(1);  // slices are the parallelism
  run_in_slices(g, pool, run_slice);
}

}  // namespace

GemmKernel gemm_openblas() {
  return {.name = "cpu.openblas", .supports = supports, .run = run};
}

}  // namespace spear::cpu
