// The loops for what every processor of the family has (SSE2, NEON). Compiled with that set's
// flags: only the table's function is visible outside, and nothing from a shared header may be
// instantiated here (ARCHITECTURE.md, "Instruction sets").
#include <stddef.h>
#include <stdint.h>

#include "spear/kernels/cpu/simd/simd.h"

namespace spear::cpu {
namespace {

constexpr int kWidth = 4;
constexpr const char* kName = "baseline";

// In this order: each builds on those above it.
// clang-format off
#include "spear/kernels/cpu/simd/vector.inl"
static inline VecF load_halves(const uint16_t* p) {
  return halves_to_floats(p);
}
static inline void store_halves(uint16_t* p, VecF v) {
  for (int i = 0; i < kWidth; ++i) p[i] = f16_of(v[i]);
}
#include "spear/kernels/cpu/simd/elementwise.inl"
#include "spear/kernels/cpu/simd/loss.inl"
#include "spear/kernels/cpu/simd/kv_rows.inl"
#include "spear/kernels/cpu/simd/attention.inl"
#include "spear/kernels/cpu/simd/attention_decode.inl"
#include "spear/kernels/cpu/simd/attention_backward.inl"
#include "spear/kernels/cpu/simd/quantized.inl"
#include "spear/kernels/cpu/simd/dense_rows.inl"
#include "spear/kernels/cpu/simd/low_rank.inl"
#include "spear/kernels/cpu/simd/peak.inl"
#include "spear/kernels/cpu/simd/table.inl"
// clang-format on

}  // namespace

const SimdLoops& simd_baseline() {
  return kLoops;
}

}  // namespace spear::cpu
