// Contracts of the reverse of the small operations, for the trainer's own reverse pass
// (model/gradients). FP32. Each returns the gradient of its inputs from that of its output; `+=` is
// said where a gradient accumulates.
#pragma once

#include <cstdint>

namespace spear {

class ThreadPool;

struct RmsNormBackwardArgs {
  int64_t m = 0, n = 0;
  const float* x = nullptr;            // [m, n] input of the norm
  const float* weight = nullptr;       // [n] or null (ones)
  const float* inverse_rms = nullptr;  // [m]
  const float* dy = nullptr;           // [m, n]
  float* dx = nullptr;                 // [m, n], += (the residual stream's gradient)
  float* dweight = nullptr;            // [n] +=, or null
};

struct SiluMulBackwardArgs {
  int64_t count = 0;
  const float* gate = nullptr;  // [count]
  const float* up = nullptr;    // [count]
  const float* dy = nullptr;    // [count]
  float* dgate = nullptr;       // [count]
  float* dup = nullptr;         // [count]
};

// Dense causal attention over independent sequences of equal length, no cache: forward keeps the
// log-sum-exp.
struct DenseAttentionArgs {
  int64_t batch = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0;
  const float* q = nullptr;  // [batch, length, heads, head_dim], RoPE applied
  const float* k = nullptr;  // [batch, length, kv_heads, head_dim]
  const float* v = nullptr;  // [batch, length, kv_heads, head_dim]
  float scale = 0;
  float* y = nullptr;        // [batch, length, heads, head_dim]
  float* log_sum = nullptr;  // [batch, heads, length]
};

struct DenseAttentionBackwardArgs {
  DenseAttentionArgs forward;  // y and log_sum filled
  const float* dy = nullptr;   // [batch, length, heads, head_dim]
  float* dq = nullptr;         // [batch, length, heads, head_dim]
  float* dk = nullptr;         // [batch, length, kv_heads, head_dim]
  float* dv = nullptr;         // [batch, length, kv_heads, head_dim]
};

namespace ref {
void rms_norm_backward(const RmsNormBackwardArgs& args);
void silu_mul_backward(const SiluMulBackwardArgs& args);
void dense_attention(const DenseAttentionArgs& args);
void dense_attention_backward(const DenseAttentionBackwardArgs& args);
}  // namespace ref

namespace cpu {
void rms_norm_backward(const RmsNormBackwardArgs& args, ThreadPool& pool);
void silu_mul_backward(const SiluMulBackwardArgs& args, ThreadPool& pool);
void dense_attention(const DenseAttentionArgs& args, ThreadPool& pool);
void dense_attention_backward(const DenseAttentionBackwardArgs& args, ThreadPool& pool);
}  // namespace cpu

}  // namespace spear
