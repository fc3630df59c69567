// The gate of a stored compensator as the packed kernels read it. Stateless: any thread.
#pragma once

#include <vector>

#include "spear/kernels/cpu/packed/packed_kernels.h"
#include "spear/kernels/w4_linear.h"

namespace spear::cpu {

// The gate's matrices as floats, transposed so that both products add scaled rows, in `memory`,
// which must outlive the result. Without a gate: null weights.
GateWeights widen_gate(const CompensatorView& ec, std::vector<float>& memory);

}  // namespace spear::cpu
