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
#include "spear/kernels/cpu/simd/narrow_avx512.inl"
#include "spear/kernels/cpu/simd/elementwise.inl"
#include "spear/kernels/cpu/simd/loss.inl"
#include "spear/kernels/cpu/simd/kv_rows.inl"
#include "spear/kernels/cpu/simd/attention.inl"
#include "spear/kernels/cpu/simd/attention_decode.inl"
#include "spear/kernels/cpu/simd/attention_int8.inl"
#include "spear/kernels/cpu/simd/attention_int8_tile.inl"
#include "spear/kernels/cpu/simd/attention_chunk.inl"
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
