// A quantized decoder in host memory: packed weights, compensators, norms, the rotation of the
// residual stream. The canonical layout (kernels/w4_linear.h) that the artifact stores and kernels
// pack from. Plain data with owners.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "spear/base/host_tensor.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/w4_linear.h"
#include "spear/model/config.h"
#include "spear/model/modules.h"

namespace spear {

// A quantized matrix [n, k]; see QuantizedView for what each buffer holds.
struct QuantizedMatrix {
  int32_t n = 0, k = 0, bits = 4, group = 0;
  ZeroKind zero_kind = ZeroKind::kU4;
  HostBuffer codes;   // bits 16: BF16 values
  HostBuffer scales;  // f16 [n, k / group]
  HostBuffer zeros;

  [[nodiscard]] bool empty() const { return n == 0; }
  [[nodiscard]] QuantizedView view() const {
    return {n, k, bits, group, zero_kind, codes.as<uint8_t>(), scales.as<uint16_t>(), zeros.data()};
  }
  [[nodiscard]] size_t bytes() const { return codes.bytes() + scales.bytes() + zeros.bytes(); }
};

// Codes, scales and zeros before they are packed: what quantizers produce and the trainer tunes.
struct UnpackedMatrix {
  int32_t n = 0, k = 0, bits = 4, group = 0;
  bool symmetric = false;
  std::vector<uint8_t> codes;  // [n, k]
  std::vector<float> scales;   // [n, k / group]
  std::vector<float> zeros;    // [n, k / group]; 2^(bits-1) when symmetric
};

// Rounds scales to F16 and zeros to `zero_kind`, packs the codes. Codes must be < 2^bits, kU4 zeros
// integers in [0, 15].
QuantizedMatrix pack(const UnpackedMatrix& matrix, ZeroKind zero_kind);
UnpackedMatrix unpack(const QuantizedView& view);
// BF16 rows kept as they are (bits = 16).
QuantizedMatrix keep_bf16(TensorView weight);  // [n, k] bf16 or f32

struct ErrorCompensator {
  int32_t rank = 0, n = 0, k = 0, factor_bits = 8, gate_hidden = 0;
  HostBuffer a, b;                // [rank, k], [rank, n] in factor_bits
  HostBuffer a_scales, b_scales;  // f16 [rank]
  HostBuffer
      gate;  // f16: w1 [hidden, rank], b1 [hidden], w2 [rank, hidden], b2 [rank], in this order

  [[nodiscard]] CompensatorView view() const;
  [[nodiscard]] size_t bytes() const {
    return a.bytes() + b.bytes() + a_scales.bytes() + b_scales.bytes() + gate.bytes();
  }
};

// Real-valued factors and gate, before rounding.
struct CompensatorValues {
  int32_t rank = 0, n = 0, k = 0, gate_hidden = 0;
  std::vector<float> a;               // [rank, k]
  std::vector<float> b;               // [rank, n]
  std::vector<float> w1, b1, w2, b2;  // see CompensatorView; empty without a gate
};

// Rounds factors to `factor_bits` (8, 4: symmetric per rank row, scale = max|·| / (2^(bits-1) - 1)
// in F16; 16: F16).
ErrorCompensator pack(const CompensatorValues& values, int32_t factor_bits);
CompensatorValues unpack(const CompensatorView& view, int32_t n, int32_t k);

struct QuantizedLinear {
  QuantizedMatrix weight;
  std::optional<ErrorCompensator> compensator;
  HostTensor bias;  // [n] f16: the model's own bias plus the tuned one; empty: none
};

struct QuantizedLayer {
  HostTensor input_norm;  // [hidden] f16 or f32; empty: ones (folded into the following linears)
  HostTensor post_attention_norm;  // likewise
  HostTensor q_norm, k_norm;       // [head_dim] f32, or empty
  std::array<QuantizedLinear, kModulesPerLayer> linears;
  [[nodiscard]] const QuantizedLinear& linear(Module m) const {
    return linears[static_cast<size_t>(m)];
  }
  [[nodiscard]] QuantizedLinear& linear(Module m) { return linears[static_cast<size_t>(m)]; }
};

// The structured rotation of the residual stream (kernels/decoder_ops.h RotationView), owned.
struct ResidualRotation {
  int64_t p = 1, h = 1;
  std::vector<float> signs_in, signs_out;  // [p * h]
  std::vector<float> factor;               // [p, p]
  [[nodiscard]] RotationView view() const {
    return {p * h, p, h, signs_in.data(), factor.data(), signs_out.data()};
  }
};

struct QuantizedModel {
  ModelConfig config;
  QuantizedMatrix embedding;  // [vocab, hidden]
  QuantizedMatrix head;       // empty when tied
  HostTensor final_norm;      // [hidden] f32: applied after un-rotating
  std::optional<ResidualRotation>
      rotation;  // embedding rows are rotated by it, the final hidden state un-rotated
  std::vector<QuantizedLayer> layers;

  [[nodiscard]] const QuantizedMatrix& head_matrix() const {
    return head.empty() ? embedding : head;
  }
};

// Where the bytes of a model go; every stored byte of its tensors is in exactly one part.
struct ByteCount {
  size_t weights = 0, scales = 0, zeros = 0, compensators = 0, biases = 0, norms = 0, embedding = 0,
         head = 0, other = 0;
  [[nodiscard]] size_t total() const {
    return weights + scales + zeros + compensators + biases + norms + embedding + head + other;
  }
};
ByteCount count_bytes(const QuantizedModel& model);
// The same model as RTN per channel: F16 scales, 4-bit zeros, 8-bit head; an embedding that is not
// the head in 4 bits, groups of 32. What "extra bytes" are measured against.
size_t plain_w4_bytes(const ModelConfig& config);

}  // namespace spear
