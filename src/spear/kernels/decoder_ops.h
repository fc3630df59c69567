// Contracts of the small operations of a decoder: embedding rows, RMS norm, RoPE, SiLU, residual
// add, the structured rotation. All activations are FP32 row-major. Each has a plain twin in
// kernels/ref and a threaded one in kernels/cpu.
#pragma once

#include <cstdint>

namespace spear {

class ThreadPool;

struct RmsNormArgs {
  int64_t m = 0, n = 0;
  const float* x = nullptr;       // [m, n]
  const float* weight = nullptr;  // [n], or null: ones (folded into the following linears)
  float eps = 1e-5f;
  float* y = nullptr;            // [m, n]; may be x
  float* inverse_rms = nullptr;  // [m], or null: what the backward pass needs
};

// Rotates pairs (i, i + d/2) of each head of q and k by position · inverse_frequency (Hugging
// Face's half split).
struct RopeArgs {
  int64_t m = 0, heads = 0, head_dim = 0;
  float* x = nullptr;                          // [m, heads, head_dim], in place
  int64_t row_stride = 0;                      // elements between tokens, ≥ heads · head_dim
  const int32_t* positions = nullptr;          // [m]
  const float* inverse_frequencies = nullptr;  // [head_dim / 2]
  bool inverse = false;  // rotate back: the transpose, used by the backward pass
};

// y = silu(gate) ⊙ up
struct SiluMulArgs {
  int64_t count = 0;
  const float* gate = nullptr;  // [count]
  const float* up = nullptr;    // [count]
  float* y = nullptr;           // [count]; may be gate
};

// The structured orthogonal transform Q = S·(F ⊗ H)·S' on rows of n = p · h: random signs, a small
// orthogonal factor over p, a normalised Walsh-Hadamard transform over h (a power of two), signs
// again. y = x·Q, or x·Qᵀ when inverse.
struct RotationView {
  int64_t n = 0, p = 1, h = 1;      // n = p · h; element (i, j) of a row stands at i · h + j
  const float* signs_in = nullptr;  // [n] of ±1
  const float* factor = nullptr;    // [p, p] orthogonal, row-major; (x·F)[i'] = Σ_i x[i] F[i, i']
  const float* signs_out = nullptr;  // [n] of ±1
};

struct RotateArgs {
  int64_t m = 0;
  RotationView rotation;
  bool inverse = false;
  float* x = nullptr;  // [m, n], in place
};

namespace ref {
void rms_norm(const RmsNormArgs& args);
void rope(const RopeArgs& args);
void silu_mul(const SiluMulArgs& args);
void rotate(const RotateArgs& args);
}  // namespace ref

namespace cpu {
void rms_norm(const RmsNormArgs& args, ThreadPool& pool);
void rope(const RopeArgs& args, ThreadPool& pool);
void silu_mul(const SiluMulArgs& args, ThreadPool& pool);
void rotate(const RotateArgs& args, ThreadPool& pool);
}  // namespace cpu

}  // namespace spear
