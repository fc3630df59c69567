// The student of a training: a quantized decoder whose codes are frozen and whose scales, zero
// points, compensators, row biases and norms are real numbers in one flat vector. The table of
// spans says what stands where. Plain data.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "spear/model/modules.h"
#include "spear/model/quantized_model.h"

namespace spear {

enum class ParameterKind : uint8_t {
  kScale,    // multiplies the scale the student started with: [n, groups], 1 at the start
  kZero,     // zero point in code units: [n, groups]
  kBias,     // [n]
  kFactorA,  // [rank, k]
  kFactorB,  // [rank, n]
  kGateW1,   // [hidden, rank]
  kGateB1,   // [hidden]
  kGateW2,   // [rank, hidden]
  kGateB2,   // [rank]
  kNorm,     // RMS norm weights
};
inline constexpr int kParameterKinds = 10;

// A set of kinds, one bit each. The gradients of a gate come together: any of its kinds asks for
// all.
using KindSet = uint32_t;
constexpr KindSet bit(ParameterKind kind) {
  return 1u << static_cast<int>(kind);
}
inline constexpr KindSet kFactorKinds = bit(ParameterKind::kFactorA) | bit(ParameterKind::kFactorB);
inline constexpr KindSet kGateKinds = bit(ParameterKind::kGateW1) | bit(ParameterKind::kGateB1) |
                                      bit(ParameterKind::kGateW2) | bit(ParameterKind::kGateB2);

struct ParameterSpan {
  std::string name;  // "layers.3.mlp.down_proj.factor_a"
  ParameterKind kind = ParameterKind::kScale;
  int32_t module = -1;  // ModuleId::index(), or -1: a norm
  int64_t offset = 0;
  int64_t rows = 0, columns = 0;
  [[nodiscard]] int64_t count() const { return rows * columns; }
};

// Offsets into the flat vector; -1: the student has no such parameter.
struct LinearSlots {
  int64_t scale = -1, zero = -1, bias = -1, a = -1, b = -1, w1 = -1, b1 = -1, w2 = -1, b2 = -1;
};

struct StudentLinear {
  int32_t n = 0, k = 0, bits = 4, group = 0;
  bool symmetric = false;  // its zero point is fixed: 2^(bits-1)
  ZeroKind zero_kind = ZeroKind::kU4;
  std::vector<uint8_t> codes;  // [n, k]
  std::vector<float> scales;   // [n, groups]
  int32_t rank = 0, gate_hidden = 0;
  bool compensate = true;  // false: its compensator is left out of the forward pass
  LinearSlots slots;
  [[nodiscard]] int32_t groups() const { return k / group; }
};

struct StudentLayer {
  std::array<StudentLinear, kModulesPerLayer> linears;
  int64_t input_norm = -1, post_attention_norm = -1, q_norm = -1, k_norm = -1;
  [[nodiscard]] const StudentLinear& linear(Module m) const {
    return linears[static_cast<size_t>(m)];
  }
};

struct StudentModel {
  const QuantizedModel* base =
      nullptr;  // geometry, embedding, head, rotation: frozen; outlives the student
  std::vector<StudentLayer> layers;
  int64_t final_norm = -1;
  std::vector<ParameterSpan> spans;  // in order, without gaps
  std::vector<float> start;          // the values at the start, [sum of counts]

  [[nodiscard]] const StudentLinear& linear(int64_t module_index) const {
    return layers[static_cast<size_t>(module_index / kModulesPerLayer)]
        .linears[static_cast<size_t>(module_index % kModulesPerLayer)];
  }
  [[nodiscard]] StudentLinear& linear(int64_t module_index) {
    return const_cast<StudentLinear&>(std::as_const(*this).linear(module_index));
  }
  [[nodiscard]] int64_t module_count() const {
    return static_cast<int64_t>(layers.size()) * kModulesPerLayer;
  }
};

// One compensator per module, by ModuleId::index(); empty vector or entry: what the base has, or
// none.
using CompensatorList = std::vector<std::optional<CompensatorValues>>;

struct StudentOptions {
  bool row_bias = false;     // gives every linear a row bias (0 where the model has none)
  bool layer_norms = false;  // gives folded norms a weight again (1), so that it can be trained
  bool base_compensators = true;  // start from the compensators of the base where the list has none
};

// Throws Failure(kUnsupported) for linears kept in 16 bits: they have nothing to train.
StudentModel make_student(const QuantizedModel& base, const StudentOptions& options,
                          const CompensatorList& compensators = {});

struct StoreOptions {
  int32_t factor_bits = 8;
  KindSet trained = ~KindSet{0};  // kinds not in the set keep the bytes of the base
};
// Writes the values into the model the student was made from: scales and biases to F16, trained
// zero points to 1/16 steps (8 bits and more: F16), factors to `factor_bits`. Modules that do not
// compensate lose their compensator.
void store_student(const StudentModel& student, std::span<const float> values,
                   const StoreOptions& options, QuantizedModel& model);

// The compensator of a module as real values.
CompensatorValues compensator_values(const StudentModel& student, std::span<const float> values,
                                     int64_t module_index);

}  // namespace spear
