// The libraries' entries of gemm_kernels(); each exists only in a build that found its library.
#pragma once

#include "spear/kernels/gemm.h"

namespace spear::cpu {

GemmKernel gemm_onednn();
GemmKernel gemm_openblas();
GemmKernel gemm_eigen();

// c = beta · c, where there is nothing to add: a product over k = 0.
void scale_output(const GemmArgs& args);

}  // namespace spear::cpu
