// Contracts of what the trainer computes beside products and the reverse of the decoder's
// operations: the student's weights from codes and real scales, and sums over tokens. FP32 unless
// said.
#pragma once

#include <cstdint>

namespace spear {

// w = scale · multiplier · (code − zero) per row and group, rounded to BF16.
struct WidenCodesArgs {
  int64_t n = 0, k = 0, group = 0;
  const uint8_t* codes = nullptr;      // [n, k]
  const float* scales = nullptr;       // [n, k / group], as the student started
  const float* multipliers = nullptr;  // [n, k / group]
  const float* zeros = nullptr;        // [n, k / group], or null: `centre` for all
  float centre = 0;
  uint16_t* out = nullptr;  // [n, k] bf16
};

// Over tokens, for each column: Σ a·b, Σ a·weight (weight one per token), Σ a. Null outputs are
// left out.
struct ColumnSumsArgs {
  int64_t m = 0, n = 0;
  int64_t stride = 0;             // elements between rows of a and b
  const float* a = nullptr;       // [m, n]
  const float* b = nullptr;       // [m, n]
  const float* weight = nullptr;  // [m]
  float* products = nullptr;      // [n], overwritten
  float* weighted = nullptr;      // [n], overwritten
  float* plain = nullptr;         // [n], overwritten
};

// Gradients of a per-channel linear's scales, zeros and bias from those sums (methods.md 3.4):
//   dmultiplier += (Σdy·y − bias·Σdy − Σ_r B[r]·dB[r]) / multiplier;  dzero −=
//   scale·multiplier·Σdy·Σx;  dbias += Σdy
struct ChannelGradientsArgs {
  int64_t n = 0, rank = 0;
  const float* scales = nullptr;       // [n]
  const float* multipliers = nullptr;  // [n]
  const float* bias = nullptr;         // [n] or null
  const float* b = nullptr;            // [rank, n]
  const float* db = nullptr;           // [rank, n]: of this batch alone
  const float* products = nullptr;     // [n] Σ dy·y
  const float* weighted = nullptr;     // [n] Σ dy·Σx
  const float* plain = nullptr;        // [n] Σ dy
  float* dmultipliers = nullptr;       // [n] +=, or null
  float* dzeros = nullptr;             // [n] +=, or null
  float* dbias = nullptr;              // [n] +=, or null
};

// The same with groups, from the weight-shaped gradient g = Σ dy·xᵀ.
struct GroupGradientsArgs {
  int64_t n = 0, k = 0, group = 0;
  const uint8_t* codes = nullptr;
  const float* scales = nullptr;
  const float* multipliers = nullptr;
  const float* zeros = nullptr;  // or null: `centre`
  float centre = 0;
  const float* g = nullptr;       // [n, k]
  float* dmultipliers = nullptr;  // [n, k / group] +=, or null
  float* dzeros = nullptr;        // [n, k / group] +=, or null
};

// γ(z) ⊙ z and its reverse, per token. Without a gate (hidden = 0) both copy.
struct GateArgs {
  int64_t m = 0, rank = 0, hidden = 0;
  const float *w1 = nullptr, *b1 = nullptr, *w2 = nullptr,
              *b2 = nullptr;  // [hidden, rank] [hidden] [rank, hidden] [rank]
  const float* z = nullptr;   // [m, rank]
  float* u = nullptr;         // [m, rank]: forward's output
};
struct GateBackwardArgs {
  GateArgs forward;           // u is not read
  const float* du = nullptr;  // [m, rank]
  float* dz = nullptr;        // [m, rank]
  float* h = nullptr;         // [m, hidden]: what the gate's own gradients are made from, with z:
  float* dh = nullptr;        // [m, hidden]   dW1 = dhᵀ·z, db1 = Σ dh,
  float* ds = nullptr;        // [m, rank]     dW2 = dsᵀ·h, db2 = Σ ds
};

}  // namespace spear
