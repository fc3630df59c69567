// The device twins of kernels/ref: every pointer of an Args struct points to device memory, work is
// queued on `stream` and nothing waits. Sequences and block tables of attention are given in device
// memory too. Results do not depend on scheduling: no reduction uses atomics.
#pragma once

#include <cstdint>

#include "spear/kernels/attention.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/loss.h"
#include "spear/kernels/reverse_ops.h"
#include "spear/kernels/w4_linear.h"

struct CUstream_st;

namespace spear::gpu {

using Stream = CUstream_st*;

// Elementwise (elementwise.cu)
void round_to_bf16(int64_t count, const float* x, uint16_t* y, Stream stream);
void add(int64_t count, const float* x, float* y, Stream stream);  // y += x
void add_bias(int64_t m, int64_t n, const float* bias, float* y,
              Stream stream);  // y[m, n] += bias[n]
void embed_rows(int64_t m, int64_t k, const float* table, const int32_t* tokens, float* y,
                Stream stream);
void embed_rows(int64_t m, int64_t k, const uint16_t* table, const int32_t* tokens, float* y,
                Stream stream);
void rope(const RopeArgs& args, Stream stream);
void silu_mul(const SiluMulArgs& args, Stream stream);
void silu_mul_backward(const SiluMulBackwardArgs& args, Stream stream);

// Norms and the rotation (norm.cu, rotate.cu). partials: [partial_rows(m), n] floats, for dweight
// only.
int64_t norm_partial_rows(int64_t m);
void rms_norm(const RmsNormArgs& args, Stream stream);
void rms_norm_backward(const RmsNormBackwardArgs& args, float* partials, Stream stream);
void rotate(const RotateArgs& args, Stream stream);

// Attention (attention.cu, attention_backward.cu). `max_rows`: the most query rows of one sequence.
void kv_append(const KvAppendArgs& args, int64_t max_rows, Stream stream);
void attention(const AttentionArgs& args, int64_t max_rows, Stream stream);
void dense_attention(const DenseAttentionArgs& args, Stream stream);
// row_dots: scratch [batch, heads, length]
void dense_attention_backward(const DenseAttentionBackwardArgs& args, float* row_dots,
                              Stream stream);

// Over the vocabulary (loss.cu)
void log_sum_exp(const LogSumExpArgs& args, Stream stream);
void kl_divergence(const KlArgs& args, Stream stream);

// The quantized linear's plain path (w4_linear.cu): the weight expanded to BF16 or F32 beside a
// library product.
void dequantize(const QuantizedView& w, uint16_t* out, Stream stream);  // [n, k] bf16
void dequantize(const QuantizedView& w, float* out, Stream stream);     // [n, k] f32
void embed_quantized(const QuantizedView& w, int64_t m, const int32_t* tokens, float* y,
                     Stream stream);
// u = γ(z) ⊙ z of each row, in place; z [m, rank]
void apply_gate(const CompensatorView& ec, int64_t m, float* z, Stream stream);
// A and B of a compensator as F32: [rank, columns]
void expand_factor(const void* factor, const uint16_t* scales, int32_t bits, int32_t rank,
                   int32_t columns, float* out, Stream stream);

}  // namespace spear::gpu
