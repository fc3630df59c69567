#include "spear/kernels/cpu/packed/packed_select.h"

namespace spear::cpu {

std::vector<const PackedKernels*> usable_packed_kernels() {
  return {&packed_plain()};
}

}  // namespace spear::cpu
