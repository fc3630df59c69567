// The reverse pass on a device with memory of its own: state and steps. Activations of all layers
// stay on the device; weights are widened one module at a time. gradients_device.cpp goes forward,
// gradients_device_reverse.cpp back. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/backend/training_ops.h"
#include "spear/model/gradients.h"

namespace spear {

class DeviceReversePass final : public ReversePass {
 public:
  DeviceReversePass(const StudentModel& student, TensorView reference_head, Backend& backend);

  double loss(std::span<const float> values, const StudentBatch& batch) override;
  double loss_from(int32_t first_layer, std::span<const float> values,
                   const StudentBatch& batch) override;
  double loss_and_gradient(std::span<const float> values, const StudentBatch& batch, KindSet wanted,
                           double weight, std::span<float> gradients) override;
  void hidden(std::span<const float> values, std::span<const int32_t> tokens, int64_t sequences,
              int64_t length, std::span<float> out) override;
  [[nodiscard]] const PassTimes& times() const override { return times_; }

 private:
  // Device memory that grows and keeps no contents.
  class Memory {
   public:
    float* floats(Backend& backend, int64_t count) { return bytes(backend, count * 4).as<float>(); }
    uint16_t* halves(Backend& backend, int64_t count) {
      return bytes(backend, count * 2).as<uint16_t>();
    }
    [[nodiscard]] float* data() const { return buffer_.as<float>(); }
    [[nodiscard]] uint16_t* half_data() const { return buffer_.as<uint16_t>(); }

   private:
    DeviceBuffer& bytes(Backend& backend, int64_t count) {
      if (buffer_.bytes() < static_cast<size_t>(count)) {
        backend.synchronize();  // work queued on the old block ends before it goes
        buffer_ = backend.allocate(static_cast<size_t>(count));
      }
      return buffer_;
    }
    DeviceBuffer buffer_;
  };

  struct FrozenLinear {
    DeviceBuffer codes, scales;
  };

  struct ModuleState {
    Memory output, latent, gated;  // y [m, n], z and γ(z) ⊙ z [m, rank]
  };

  struct LayerState {
    std::array<Memory, kSitesPerLayer> input;  // bf16 [m, k]
    std::array<Memory, kSitesPerLayer> sums;   // Σx [m]
    std::array<ModuleState, kModulesPerLayer> modules;
    Memory input_inverse, middle, middle_inverse;  // [m], [m, hidden], [m]
    Memory q, k, q_inverse, k_inverse;             // after QK norm and RoPE
    Memory attention, log_sum;
  };

  template <class T>
  DeviceBuffer put(const std::vector<T>& host) {
    DeviceBuffer buffer = backend_.allocate(host.size() * sizeof(T));
    backend_.upload(buffer.as<void>(), host.data(), host.size() * sizeof(T));
    return buffer;
  }
  DeviceBuffer head_of_student();
  DeviceBuffer head_of_teacher(TensorView weight);

  [[nodiscard]] const float* value(int64_t slot) const {
    return slot < 0 ? nullptr : values_.data() + slot;
  }
  [[nodiscard]] float* gradient(int64_t slot, ParameterKind kind) const {
    return slot < 0 || (wanted_ & bit(kind)) == 0 ? nullptr : gradients_.data() + slot;
  }
  [[nodiscard]] float eps() const { return static_cast<float>(config_.rms_norm_eps); }

  // c[m, n] = beta·c + a·b, both factors of one type, rows without gaps.
  void product(int64_t m, int64_t n, int64_t k, const void* a, bool transpose_a, const void* b,
               bool transpose_b, DType type, float* c, float beta);
  void upload_values(std::span<const float> values);
  void begin(std::span<const float> values, std::span<const int32_t> tokens, int64_t sequences,
             int64_t length);
  void norm(int64_t m, int64_t n, const float* x, int64_t slot, float* y, float* inverse);
  [[nodiscard]] RopeArgs rope_args(int64_t heads, float* x, bool inverse) const;
  [[nodiscard]] GateArgs gate_args(const StudentLinear& linear, const float* z, float* u) const;
  const uint16_t* widen(size_t layer, Module module);
  void keep_input(size_t layer, InputSite site, const float* x);
  void run_module(size_t layer, Module module);
  void place_heads(const float* projected, int64_t slot, int64_t heads, float* inverse,
                   float* placed);
  DenseAttentionArgs attention_args(size_t layer);
  void run_layer(size_t layer);
  void final_hidden();
  double finish(const StudentBatch& batch, double weight, float* dx);
  void reverse_module(size_t layer, Module module, const float* dy, float* dx, bool first);
  void reverse_compensator(size_t layer, Module module, const float* dy, float* dx);
  void reverse_norm(int64_t m, int64_t n, const float* x, int64_t slot, const float* inverse,
                    const float* dy, float* dx);
  void reverse_attention(size_t layer, float* dx);
  const float* reverse_heads(float* d, const float* projected, int64_t slot, const float* inverse,
                             int64_t heads, Memory& scratch);
  void reverse_layer(size_t layer, float* dx);

  const StudentModel& student_;
  const ModelConfig& config_;
  Backend& backend_;
  TrainingOps& ops_;
  std::unique_ptr<PreparedLinear> embedding_;
  std::vector<FrozenLinear> frozen_;  // by ModuleId::index()
  std::vector<LayerState> states_;
  std::vector<Memory> inputs_;  // the residual stream before each layer and after the last
  DeviceBuffer inverse_frequencies_, student_head_, teacher_head_, signs_in_, factor_, signs_out_;
  RotationView rotation_;
  Memory values_, gradients_, tokens_, positions_, matrix_, a_half_, normed_, activation_, dx_,
      branch_, dgate_, dup_;
  Memory dy_half_, du_, dz_, dz_half_, h_, dh_, ds_, db_, weight_gradient_, products_, weighted_,
      plain_;
  Memory dattention_, dq_, dk_, dv_, dq_raw_, dk_raw_;
  Memory unrotated_, final_inverse_, final_hidden_, dfinal_, hidden_half_, teacher_half_;
  Memory student_logits_, teacher_logits_, logit_half_, kl_;
  std::vector<float> host_gradients_;
  KindSet wanted_ = 0;
  int64_t rows_ = 0, sequences_ = 0, length_ = 0;
  PassTimes times_;
};

}  // namespace spear
