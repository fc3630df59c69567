// TrainingOps of the GPU backend: kernels/gpu/training.cu on the backend's stream. Lives inside the
// backend.
#pragma once

#include <functional>

#include "spear/backend/backend.h"
#include "spear/backend/training_ops.h"
#include "spear/kernels/gpu/gpu_training.h"

namespace spear {

class GpuTrainingOps final : public TrainingOps {
 public:
  // scratch(floats): device memory of the backend that stays valid for the work queued next.
  GpuTrainingOps(gpu::Stream stream, std::function<float*(int64_t)> scratch)
      : stream_(stream), scratch_(std::move(scratch)) {}

  void fill(int64_t count, float value, float* y) override { gpu::fill(count, value, y, stream_); }
  void round_to_bf16(int64_t count, const float* x, uint16_t* y) override {
    gpu::round_to_bf16(count, x, y, stream_);
  }
  void add_row(int64_t m, int64_t n, const float* row, float* y) override {
    gpu::add_bias(m, n, row, y, stream_);
  }
  void row_sums(int64_t m, int64_t k, const uint16_t* x, float* sums) override {
    gpu::row_sums(m, k, x, sums, stream_);
  }
  void widen_codes(const WidenCodesArgs& args) override { gpu::widen_codes(args, stream_); }
  void column_sums(const ColumnSumsArgs& args) override {
    gpu::column_sums(args, scratch_(gpu::column_partial_floats(args)), stream_);
  }
  void channel_gradients(const ChannelGradientsArgs& args) override {
    gpu::channel_gradients(args, stream_);
  }
  void group_gradients(const GroupGradientsArgs& args) override {
    gpu::group_gradients(args, stream_);
  }
  void gate(const GateArgs& args) override { gpu::gate(args, stream_); }
  void gate_backward(const GateBackwardArgs& args) override { gpu::gate_backward(args, stream_); }

 private:
  gpu::Stream stream_;
  std::function<float*(int64_t)> scratch_;
};

}  // namespace spear
