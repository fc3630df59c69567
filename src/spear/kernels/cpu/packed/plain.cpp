// The packed kernels for what every processor of the family has. Compiled with that set's flags:
// only the table's function is visible outside, and nothing from a shared header may be
// instantiated here (ARCHITECTURE.md, "Instruction sets").
#include <stddef.h>
#include <stdint.h>

#include "spear/kernels/cpu/packed/packed_kernels.h"

namespace spear::cpu {
namespace {

constexpr int kWidth = 4;
constexpr const char* kName = "w4.plain";

// In this order: each builds on those above it.
// clang-format off
#include "spear/kernels/cpu/simd/vector.inl"
#include "spear/kernels/cpu/packed/integers.inl"
#include "spear/kernels/cpu/packed/sums_plain.inl"
#include "spear/kernels/cpu/packed/panels.inl"
#include "spear/kernels/cpu/packed/tokens.inl"
#include "spear/kernels/cpu/packed/many_ranks.inl"
#include "spear/kernels/cpu/packed/table.inl"
// clang-format on

}  // namespace

const PackedKernels& packed_plain() {
  return kKernels;
}

}  // namespace spear::cpu
