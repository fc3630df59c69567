// The loops for AVX-512 F, BW, DQ, VL and VNNI. Compiled with that set's flags: only the table's
// function is visible outside, and nothing from a shared header may be instantiated here
// (ARCHITECTURE.md, "Instruction sets").
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "spear/kernels/cpu/simd/simd.h"

namespace spear::cpu {
namespace {

constexpr int kWidth = 16;
constexpr const char* kName = "avx512";

// In this order: each builds on those above it.
// clang-format off
#include "spear/kernels/cpu/simd/vector.inl"
static inline VecF load_halves(const uint16_t* p) {
  return _mm512_maskz_cvtph_ps(static_cast<__mmask16>(-1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline void store_halves(uint16_t* p, VecF v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(static_cast<__mmask16>(-1), v, _MM_FROUND_TO_NEAREST_INT));
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

const SimdLoops& simd_avx512() {
  return kLoops;
}

}  // namespace spear::cpu
