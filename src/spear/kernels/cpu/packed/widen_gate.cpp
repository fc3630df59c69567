#include "spear/kernels/cpu/packed/widen_gate.h"

#include "spear/base/dtype.h"

namespace spear::cpu {

GateWeights widen_gate(const CompensatorView& ec, std::vector<float>& memory) {
  if (ec.rank == 0 || ec.gate_hidden == 0) return {};
  const int32_t width = padded_gate(ec.gate_hidden);
  const int32_t rank = padded_gate(ec.rank);
  const auto at = [](int64_t a, int64_t b) { return static_cast<size_t>(a * b); };
  memory.assign(at(ec.rank, width) + at(1, width) + at(ec.gate_hidden, rank) + at(1, rank), 0.0f);
  float* w1 = memory.data();
  float* b1 = w1 + ec.rank * width;
  float* w2 = b1 + width;
  float* b2 = w2 + ec.gate_hidden * rank;
  for (int32_t i = 0; i < ec.gate_hidden; ++i) {
    b1[i] = float_from_f16(ec.b1[i]);
    for (int32_t r = 0; r < ec.rank; ++r) {
      w1[r * width + i] = float_from_f16(ec.w1[i * ec.rank + r]);
      w2[i * rank + r] = float_from_f16(ec.w2[r * ec.gate_hidden + i]);
    }
  }
  for (int32_t r = 0; r < ec.rank; ++r) b2[r] = float_from_f16(ec.b2[r]);
  return {ec.rank, ec.gate_hidden, w1, b1, w2, b2};
}

}  // namespace spear::cpu
