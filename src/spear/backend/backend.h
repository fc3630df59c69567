// Where a model runs: memory, prepared linears and about fifteen operations on views. The decoder
// and the trainer use a device through this alone. Activations are F32. A backend is used by one
// thread at a time and works with its own threads inside. Operations may return before they are
// done; synchronize() waits. Shapes are as in the contracts of kernels/; a pointer in their Args
// structs points to this backend's memory.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "spear/backend/decoder_program.h"
#include "spear/base/error.h"
#include "spear/base/tensor_view.h"
#include "spear/kernels/attention.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/gemm.h"
#include "spear/kernels/loss.h"
#include "spear/kernels/reverse_ops.h"
#include "spear/kernels/w4_linear.h"

namespace spear {

class ThreadPool;
class TrainingOps;

// Memory of a device with one owner; moves, never copies. Contents start undefined.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(void* data, size_t bytes, std::function<void(void*)> release)
      : data_(data), bytes_(bytes), release_(std::move(release)) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) release_(data_);
  }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  template <class T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(release_, other.release_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::function<void(void*)> release_;
};

// A linear on the device, in the layout of the kernel that was chosen for it.
class PreparedLinear {
 public:
  virtual ~PreparedLinear() = default;
  [[nodiscard]] virtual int64_t in_features() const = 0;
  [[nodiscard]] virtual int64_t out_features() const = 0;
  [[nodiscard]] virtual std::string_view kernel() const = 0;  // its name: shown in logs
};

// How exact products are. kF32 is the exact path; kBF16 rounds both factors and accumulates in F32.
enum class Compute : uint8_t { kF32, kBF16 };

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;  // "cpu", "cuda:0"
  [[nodiscard]] virtual std::string describe()
      const = 0;  // the processor and the kernels in use, one line

  // Memory. upload/download are ordered with the operations; download waits.
  virtual DeviceBuffer allocate(size_t bytes) = 0;
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void copy(const float* from, float* to, int64_t count) = 0;  // within the device
  virtual void synchronize() = 0;

  // Linears. The views must outlive the prepared linear on a backend that shares the host's memory
  // (cpu). weight [n, k] f32 or bf16; bias [n] f32 (host) or null.
  virtual std::unique_ptr<PreparedLinear> prepare_dense(TensorView weight, const float* bias,
                                                        Compute compute) = 0;
  virtual std::unique_ptr<PreparedLinear> prepare_quantized(const QuantizedView& weight,
                                                            const CompensatorView& ec,
                                                            const float* bias, Compute compute) = 0;
  // y[m, n] = linear(x[m, k])
  virtual void linear(const PreparedLinear& linear, int64_t m, const float* x, float* y) = 0;
  // Rows of a prepared matrix as F32: y[i] = W[tokens[i]]; tokens are checked by the caller. [m, k]
  virtual void embed(const PreparedLinear& table, int64_t m, const int32_t* tokens, float* y) = 0;

  virtual void gemm(const GemmArgs& args) = 0;
  virtual void rms_norm(const RmsNormArgs& args) = 0;
  virtual void rope(const RopeArgs& args) = 0;
  virtual void silu_mul(const SiluMulArgs& args) = 0;
  virtual void add(int64_t count, const float* x, float* y) = 0;  // y += x
  virtual void rotate(const RotateArgs& args) = 0;
  // Whether caches of this element type can be used below.
  [[nodiscard]] virtual bool supports_kv(DType type) const { return type == DType::kF32; }
  virtual void kv_append(const KvAppendArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void log_sum_exp(const LogSumExpArgs& args) = 0;
  virtual void kl_divergence(const KlArgs& args) = 0;

  // The reverse of the small operations, for training.
  virtual void rms_norm_backward(const RmsNormBackwardArgs& args) = 0;
  virtual void silu_mul_backward(const SiluMulBackwardArgs& args) = 0;
  virtual void dense_attention(const DenseAttentionArgs& args) = 0;
  virtual void dense_attention_backward(const DenseAttentionBackwardArgs& args) = 0;
  // What training needs beyond that on a device with memory of its own; null: memory is the host's,
  // where the reverse pass runs its own loops.
  virtual TrainingOps* training_ops() { return nullptr; }

  // The whole decoder as one fused step; null where this backend runs `spec` one operation at a
  // time only (`why` then says which module or property stands in the way).
  virtual std::unique_ptr<DecoderProgram> compile(const DecoderSpec& /*spec*/,
                                                  Activations /*activations*/, std::string* why) {
    if (why != nullptr) *why = "this backend has no fused step";
    return nullptr;
  }
};

// The processor: every operation on the pool's threads. `force_kernel` names a product kernel
// ("cpu.openblas", "ref") or the kernels of compiled decoders ("w4.avx2"), empty: the best here;
// refused (kUnsupported) where this machine or build lacks it, and, as a Failure at its first
// product, where it lacks the types.
Result<std::unique_ptr<Backend>> make_cpu_backend(ThreadPool& pool,
                                                  std::string_view force_kernel = {});
// A GPU by number; kUnsupported "built without CUDA" where this build has none. `force_kernel`:
// "cuda.fused" lets it compile decoders into fused steps, "cuda.cublas" and empty run one operation
// at a time; another name is refused.
Result<std::unique_ptr<Backend>> make_gpu_backend(int device, std::string_view force_kernel = {});

}  // namespace spear
