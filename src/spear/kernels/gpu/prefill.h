// What many tokens need around library products: weights expanded from the packed layout to F16
// beside their compensators' columns, activations in F16 rows, the gate for many tokens, RoPE with
// the cache's append. Rows of a product's input are [x, v] with v = (γ(u) ⊙ u) b_scale, rows of its
// weight [w, b], so that one product of k + width columns does both. Device pointers; queued on a
// stream; nothing waits, results do not depend on scheduling.
#pragma once

#include <cstdint>

#include "spear/kernels/gpu/decode_step.h"
#include "spear/kernels/gpu/rows.h"

namespace spear::gpu {

// out[n, k + width] f16: the weight, then the columns of its compensators' B codes.
void expand_matrix(const DeviceMatrix& w, const DeviceCompensators& ec, uint16_t* out,
                   Stream stream);
// out[count] f16 of int8 codes.
void expand_codes(const int8_t* codes, int64_t count, uint16_t* out, Stream stream);
// y[m, 0 .. n) of rows of `stride` = f16(RMS norm of x[m, n])
void norm_rows(int64_t m, int32_t n, const float* x, const float* weight, float eps, uint16_t* y,
               int64_t stride, Stream stream);
// y[m, 0 .. n) = f16(x[m, n])
void half_rows(int64_t m, int32_t n, const float* x, uint16_t* y, int64_t stride, Stream stream);
// y[m, 0 .. n) = f16(silu(gate) · up / kSiluScale) of interleaved x[m, 2 n]
void silu_rows(int64_t m, int32_t n, const float* x, uint16_t* y, int64_t stride, Stream stream);
// y[i, 0 .. width) of rows of `stride` = f16((γ(u) ⊙ u) b_scale · scale), u = sums[m, width] ·
// a_scale / scale
void gate_rows(const DeviceCompensators& ec, int64_t m, const float* sums, float scale, uint16_t* y,
               int64_t stride, Stream stream);
// Queries, normed and rotated, as q[m, heads, head_dim]; keys and values into the cache. Row i is
// at position contexts[i] and has its own block table. `args.y` and `args.next` are not used.
void rope_append(const DecodeAttentionArgs& args, float* q, Stream stream);

}  // namespace spear::gpu
