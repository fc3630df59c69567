// What training needs of a device with memory of its own, beyond backend.h. A backend that works in
// the host's memory has none of these: there the reverse pass runs its own loops
// (model/gradients_graph.h). Every pointer is the device's.
#pragma once

#include <cstdint>

#include "spear/kernels/training.h"

namespace spear {

class TrainingOps {
 public:
  virtual ~TrainingOps() = default;
  virtual void fill(int64_t count, float value, float* y) = 0;
  virtual void round_to_bf16(int64_t count, const float* x, uint16_t* y) = 0;
  virtual void add_row(int64_t m, int64_t n, const float* row, float* y) = 0;  // y[m, n] += row[n]
  virtual void row_sums(int64_t m, int64_t k, const uint16_t* x, float* sums) = 0;  // x [m, k] bf16
  virtual void widen_codes(const WidenCodesArgs& args) = 0;
  virtual void column_sums(const ColumnSumsArgs& args) = 0;
  virtual void channel_gradients(const ChannelGradientsArgs& args) = 0;
  virtual void group_gradients(const GroupGradientsArgs& args) = 0;
  virtual void gate(const GateArgs& args) = 0;
  virtual void gate_backward(const GateBackwardArgs& args) = 0;
};

}  // namespace spear
