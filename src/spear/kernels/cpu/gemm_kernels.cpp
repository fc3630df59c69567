#include <algorithm>

#include "spear/kernels/cpu/gemm_libraries.h"
#include "spear/kernels/cpu/gemm_tables.h"
#include "spear/kernels/gemm.h"

namespace spear {

namespace cpu {

void scale_output(const GemmArgs& g) {
  for (int64_t i = 0; i < g.m; ++i) {
    float* row = g.c + i * g.ldc;
    for (int64_t j = 0; j < g.n; ++j) row[j] = g.beta == 0.0f ? 0.0f : row[j] * g.beta;
  }
}

}  // namespace cpu

std::vector<GemmKernel> gemm_kernels() {
  std::vector<GemmKernel> list;
  if constexpr (cpu::kHasOneDnn) list.push_back(cpu::gemm_onednn());
  if constexpr (cpu::kHasOpenBlas) list.push_back(cpu::gemm_openblas());
  if constexpr (cpu::kHasEigen) list.push_back(cpu::gemm_eigen());
  list.push_back(ref::gemm());
  return list;
}

}  // namespace spear
