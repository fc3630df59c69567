// The threaded operations with the instruction set given by the caller: what the public ones of the
// contracts call with the best one, and what tests call with each.
#pragma once

#include "spear/kernels/attention.h"
#include "spear/kernels/cpu/simd/select.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/gemm.h"
#include "spear/kernels/loss.h"
#include "spear/kernels/reverse_ops.h"
#include "spear/kernels/w4_linear.h"

namespace spear::cpu {

void rms_norm(const RmsNormArgs& args, ThreadPool& pool, const SimdLoops& loops);
void rope(const RopeArgs& args, ThreadPool& pool, const SimdLoops& loops);
void silu_mul(const SiluMulArgs& args, ThreadPool& pool, const SimdLoops& loops);
void rotate(const RotateArgs& args, ThreadPool& pool, const SimdLoops& loops);

void attention(const AttentionArgs& args, ThreadPool& pool, const SimdLoops& loops);
void kv_append(const KvAppendArgs& args, ThreadPool& pool, const SimdLoops& loops);

void log_sum_exp(const LogSumExpArgs& args, ThreadPool& pool, const SimdLoops& loops);
void kl_divergence(const KlArgs& args, ThreadPool& pool, const SimdLoops& loops);

void rms_norm_backward(const RmsNormBackwardArgs& args, ThreadPool& pool, const SimdLoops& loops);
void silu_mul_backward(const SiluMulBackwardArgs& args, ThreadPool& pool, const SimdLoops& loops);
void dense_attention(const DenseAttentionArgs& args, ThreadPool& pool, const SimdLoops& loops);
void dense_attention_backward(const DenseAttentionBackwardArgs& args, ThreadPool& pool,
                              const SimdLoops& loops);

void w4_linear(const W4LinearArgs& args, bool exact, HostBuffer& workspace, ThreadPool& pool,
               const GemmKernel& gemm, const SimdLoops& loops);

}  // namespace spear::cpu
