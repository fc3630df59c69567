#include "spear/base/cpu_features.h"
#include "spear/kernels/cpu/packed/packed_select.h"

namespace spear::cpu {

std::vector<const PackedKernels*> usable_packed_kernels() {
  const CpuFeatures cpu = detect_cpu_features();
  std::vector<const PackedKernels*> list;
  if (cpu.avx512_vnni) list.push_back(&packed_avx512());
  if (cpu.avx2_fma) list.push_back(&packed_avx2());
  list.push_back(&packed_plain());
  return list;
}

}  // namespace spear::cpu
