// Which packed kernels run here.
#pragma once

#include <vector>

#include "spear/kernels/cpu/packed/packed_kernels.h"

namespace spear::cpu {

// Best first; the last one runs on every processor of the family.
std::vector<const PackedKernels*> usable_packed_kernels();

}  // namespace spear::cpu
