// The loops for AVX2 with FMA. Compiled with that set's flags: only the table's function
// is visible outside, and nothing from a shared header may be instantiated here (ARCHITECTURE.md,
// "Instruction sets").
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "spear/kernels/cpu/simd/simd.h"

namespace spear::cpu {
namespace {

constexpr int kWidth = 8;
constexpr const char* kName = "avx2";

// In this order: each builds on those above it.
// clang-format off
#include "spear/kernels/cpu/simd/vector.inl"
static inline VecF load_halves(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline void store_halves(uint16_t* p, VecF v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
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

const SimdLoops& simd_avx2() {
  return kLoops;
}

}  // namespace spear::cpu
