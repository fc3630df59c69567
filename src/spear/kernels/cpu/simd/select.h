// Which instruction set's loops run here.
#pragma once

#include <vector>

#include "spear/kernels/cpu/simd/simd.h"

namespace spear::cpu {

// Best first; the last one runs on every processor of the family.
std::vector<const SimdLoops*> usable_simd_loops();

// The first of them; the same for the life of the program.
const SimdLoops& simd_loops();

}  // namespace spear::cpu
