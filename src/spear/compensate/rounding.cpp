#include "spear/compensate/rounding.h"

#include <algorithm>
#include <cmath>

#include "spear/base/dtype.h"

namespace spear {
namespace {

constexpr float kZeroSteps = 16.0f;  // ZeroKind::kU8
constexpr float kLargestZero = 255.0f / kZeroSteps;

float to_f16(float value) {
  return float_from_f16(f16_from_float(value));
}

void round_scales(const StudentLinear& linear, std::span<float> values) {
  for (size_t i = 0; i < linear.scales.size(); ++i) {
    const float start = linear.scales[i];
    float& multiplier = values[static_cast<size_t>(linear.slots.scale) + i];
    if (start != 0) multiplier = to_f16(start * multiplier) / start;
  }
}

void round_zeros(const StudentLinear& linear, std::span<float> values) {
  for (size_t i = 0; i < linear.scales.size(); ++i) {
    float& zero = values[static_cast<size_t>(linear.slots.zero) + i];
    zero = linear.bits <= 4
               ? std::clamp(std::nearbyint(zero * kZeroSteps) / kZeroSteps, 0.0f, kLargestZero)
               : to_f16(zero);
  }
}

void put(std::span<float> values, int64_t slot, const std::vector<float>& from) {
  std::copy(from.begin(), from.end(), values.begin() + slot);
}

void round_compensator(const StudentModel& student, int64_t index, const RoundingOptions& options,
                       std::span<float> values) {
  const StudentLinear& linear = student.linear(index);
  const ErrorCompensator packed =
      pack(compensator_values(student, values, index), options.factor_bits);
  const CompensatorValues stored = unpack(packed.view(), linear.n, linear.k);
  const LinearSlots& slots = linear.slots;
  if ((options.kinds & kFactorKinds) != 0) {
    put(values, slots.a, stored.a);
    put(values, slots.b, stored.b);
  }
  if (linear.gate_hidden == 0 || (options.kinds & kGateKinds) == 0) return;
  put(values, slots.w1, stored.w1);
  put(values, slots.b1, stored.b1);
  put(values, slots.w2, stored.w2);
  put(values, slots.b2, stored.b2);
}

}  // namespace

std::vector<float> rounded(const StudentModel& student, std::span<const float> values,
                           const RoundingOptions& options) {
  std::vector<float> out(values.begin(), values.end());
  const auto asked = [&](ParameterKind kind) { return (options.kinds & bit(kind)) != 0; };
  for (int64_t index = 0; index < student.module_count(); ++index) {
    const StudentLinear& linear = student.linear(index);
    if (asked(ParameterKind::kScale)) round_scales(linear, out);
    if (asked(ParameterKind::kZero) && !linear.symmetric) round_zeros(linear, out);
    if (linear.slots.bias >= 0 && asked(ParameterKind::kBias))
      for (int64_t i = 0; i < linear.n; ++i) {
        float& bias = out[static_cast<size_t>(linear.slots.bias + i)];
        bias = to_f16(bias);
      }
    if (linear.rank > 0 && (options.kinds & (kFactorKinds | kGateKinds)) != 0)
      round_compensator(student, index, options, out);
  }
  if (!asked(ParameterKind::kNorm)) return out;
  for (const StudentLayer& layer : student.layers)
    for (const int64_t slot : {layer.input_norm, layer.post_attention_norm})
      for (int64_t i = 0; slot >= 0 && i < student.base->config.hidden_size; ++i) {
        float& weight = out[static_cast<size_t>(slot + i)];
        weight = to_f16(weight);
      }
  return out;
}

void keep_in_range(const StudentModel& student, std::span<float> values) {
  for (int64_t index = 0; index < student.module_count(); ++index) {
    const StudentLinear& linear = student.linear(index);
    if (linear.symmetric || linear.bits > 4) continue;
    for (size_t i = 0; i < linear.scales.size(); ++i) {
      float& zero = values[static_cast<size_t>(linear.slots.zero) + i];
      zero = std::clamp(zero, 0.0f, kLargestZero);
    }
  }
}

}  // namespace spear
