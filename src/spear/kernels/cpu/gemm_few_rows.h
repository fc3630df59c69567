// Products of a few rows with a transposed matrix, x [m, k] · w [n, k]ᵀ: bound by reading w once,
// where the libraries copy it first (docs/kernels.md).
#pragma once

#include "spear/kernels/cpu/simd/select.h"
#include "spear/kernels/gemm.h"

namespace spear::cpu {

bool has_few_rows(const GemmArgs& args);
void run_few_rows(const GemmArgs& args, ThreadPool* pool, const SimdLoops& loops);

}  // namespace spear::cpu
