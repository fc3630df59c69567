// Device functions behind backend/training_ops.h; queued on `stream`.
#pragma once

#include <cstdint>

#include "spear/kernels/gpu/gpu_kernels.h"
#include "spear/kernels/training.h"

namespace spear::gpu {

void fill(int64_t count, float value, float* y, Stream stream);
void row_sums(int64_t m, int64_t k, const uint16_t* x, float* sums, Stream stream);
void widen_codes(const WidenCodesArgs& args, Stream stream);
int64_t column_partial_floats(const ColumnSumsArgs& args);
void column_sums(const ColumnSumsArgs& args, float* partials, Stream stream);
void channel_gradients(const ChannelGradientsArgs& args, Stream stream);
void group_gradients(const GroupGradientsArgs& args, Stream stream);
void gate(const GateArgs& args, Stream stream);
void gate_backward(const GateBackwardArgs& args, Stream stream);

}  // namespace spear::gpu
