#include "spear/kernels/cpu/simd/select.h"

namespace spear::cpu {

std::vector<const SimdLoops*> usable_simd_loops() {
  return {&simd_baseline()};
}

const SimdLoops& simd_loops() {
  return simd_baseline();
}

}  // namespace spear::cpu
