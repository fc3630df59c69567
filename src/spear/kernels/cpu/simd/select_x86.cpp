#include "spear/base/cpu_features.h"
#include "spear/kernels/cpu/simd/select.h"

namespace spear::cpu {

std::vector<const SimdLoops*> usable_simd_loops() {
  const CpuFeatures cpu = detect_cpu_features();
  std::vector<const SimdLoops*> list;
  if (cpu.avx512_vnni) list.push_back(&simd_avx512());
  if (cpu.avx2_fma) list.push_back(&simd_avx2());
  list.push_back(&simd_baseline());
  return list;
}

const SimdLoops& simd_loops() {
  static const SimdLoops& best = *usable_simd_loops().front();
  return best;
}

}  // namespace spear::cpu
