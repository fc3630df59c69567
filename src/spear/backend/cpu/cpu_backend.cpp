// The processor as a backend: host memory, the kernels of kernels/cpu on the caller's thread pool.
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include <fmt/format.h>

#include "spear/backend/backend.h"
#include "spear/backend/cpu/cpu_program.h"
#include "spear/base/check.h"
#include "spear/base/cpu_features.h"
#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/packed/packed_select.h"

namespace spear {
namespace {

// A full-precision matrix: the host's own memory where its type is the one computed in, else a
// converted copy.
struct DenseOnCpu final : PreparedLinear {
  TensorView weight;  // [n, k] f32 or bf16
  HostBuffer converted;
  const float* bias = nullptr;
  const GemmKernel* gemm = nullptr;
  Compute compute = Compute::kF32;

  int64_t in_features() const override { return weight.columns(); }
  int64_t out_features() const override { return weight.rows(); }
  std::string_view kernel() const override { return gemm->name; }
};

struct QuantizedOnCpu final : PreparedLinear {
  QuantizedView weight;
  CompensatorView ec;
  const float* bias = nullptr;
  Compute compute = Compute::kF32;

  int64_t in_features() const override { return weight.k; }
  int64_t out_features() const override { return weight.n; }
  std::string_view kernel() const override { return "cpu.w4"; }
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(ThreadPool& pool, std::vector<GemmKernel> kernels, const cpu::PackedKernels& packed)
      : pool_(pool), kernels_(std::move(kernels)), packed_(packed) {}

  std::string_view name() const override { return "cpu"; }
  std::string describe() const override {
    const std::string model = detect_cpu_features().model;
    return fmt::format("{}, {} threads, products {}, {}", model.empty() ? "cpu" : model,
                       pool_.size(), kernels_.front().name, packed_.name);
  }

  DeviceBuffer allocate(size_t bytes) override {
    if (bytes == 0) return {};
    void* data = std::aligned_alloc(
        HostBuffer::kAlignment,
        (bytes + HostBuffer::kAlignment - 1) / HostBuffer::kAlignment * HostBuffer::kAlignment);
    if (data == nullptr) throw std::bad_alloc();
    return DeviceBuffer(data, bytes, [](void* p) { std::free(p); });
  }
  void upload(void* device, const void* host, size_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, size_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  void copy(const float* from, float* to, int64_t count) override {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
  void synchronize() override {}

  std::unique_ptr<PreparedLinear> prepare_dense(TensorView weight, const float* bias,
                                                Compute compute) override;
  std::unique_ptr<PreparedLinear> prepare_quantized(const QuantizedView& weight,
                                                    const CompensatorView& ec, const float* bias,
                                                    Compute compute) override;
  void linear(const PreparedLinear& linear, int64_t m, const float* x, float* y) override;
  void embed(const PreparedLinear& table, int64_t m, const int32_t* tokens, float* y) override;

  void gemm(const GemmArgs& args) override { kernel_for(args).run(args, &pool_); }
  void rms_norm(const RmsNormArgs& args) override { cpu::rms_norm(args, pool_); }
  void rope(const RopeArgs& args) override { cpu::rope(args, pool_); }
  void silu_mul(const SiluMulArgs& args) override { cpu::silu_mul(args, pool_); }
  void rotate(const RotateArgs& args) override { cpu::rotate(args, pool_); }
  bool supports_kv(DType type) const override {
    return type == DType::kF32 || type == DType::kF16 || type == DType::kI8;
  }
  void kv_append(const KvAppendArgs& args) override { cpu::kv_append(args, pool_); }
  void attention(const AttentionArgs& args) override { cpu::attention(args, pool_); }
  void log_sum_exp(const LogSumExpArgs& args) override { cpu::log_sum_exp(args, pool_); }
  void kl_divergence(const KlArgs& args) override { cpu::kl_divergence(args, pool_); }
  void rms_norm_backward(const RmsNormBackwardArgs& args) override {
    cpu::rms_norm_backward(args, pool_);
  }
  void silu_mul_backward(const SiluMulBackwardArgs& args) override {
    cpu::silu_mul_backward(args, pool_);
  }
  void dense_attention(const DenseAttentionArgs& args) override {
    cpu::dense_attention(args, pool_);
  }
  void dense_attention_backward(const DenseAttentionBackwardArgs& args) override {
    cpu::dense_attention_backward(args, pool_);
  }
  std::unique_ptr<DecoderProgram> compile(const DecoderSpec& spec, Activations activations,
                                          std::string* why) override {
    return make_cpu_program(spec, activations, packed_, pool_, why);
  }
  void add(int64_t count, const float* x, float* y) override {
    pool_.parallel_for(count, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] += x[i];
    });
  }

 private:
  static constexpr int64_t kElementGrain =
      16384;  // elements a thread should have before it is worth waking

  const GemmKernel& kernel_for(const GemmArgs& args) const {
    for (const GemmKernel& kernel : kernels_)
      if (kernel.supports(args)) return kernel;
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format("kernel '{}' does not multiply {} by {} matrices, which this run asks "
                    "for; choose another kernel, or none",
                    kernels_.front().name, name_of(args.a_type), name_of(args.b_type)));
  }
  void run_dense(const DenseOnCpu& linear, int64_t m, const float* x, float* y);
  void fill_bias(const float* bias, int64_t m, int64_t n, float* y);

  ThreadPool& pool_;
  std::vector<GemmKernel> kernels_;
  const cpu::PackedKernels& packed_;  // of compiled decoders
  HostBuffer rounded_;                // x in BF16
  HostBuffer workspace_;              // of the quantized linear
};

std::unique_ptr<PreparedLinear> CpuBackend::prepare_dense(TensorView weight, const float* bias,
                                                          Compute compute) {
  auto linear = std::make_unique<DenseOnCpu>();
  linear->bias = bias;
  linear->compute = compute;
  linear->weight = weight;
  const DType wanted = compute == Compute::kBF16 ? DType::kBF16 : DType::kF32;
  if (weight.dtype != wanted) {
    const int64_t count = weight.shape.count();
    linear->converted = HostBuffer(static_cast<size_t>(count) * size_of(wanted));
    if (wanted == DType::kF32) {
      const auto* from = static_cast<const uint16_t*>(weight.data);
      auto* to = linear->converted.as<float>();
      for (int64_t i = 0; i < count; ++i) to[i] = float_from_bf16(from[i]);
    } else {
      const auto* from = static_cast<const float*>(weight.data);
      auto* to = linear->converted.as<uint16_t>();
      for (int64_t i = 0; i < count; ++i) to[i] = bf16_from_float(from[i]);
    }
    linear->weight = {linear->converted.data(), weight.shape, wanted};
  }
  linear->gemm = &kernel_for({.m = 256,
                              .n = weight.rows(),
                              .k = weight.columns(),
                              .lda = weight.columns(),
                              .a_type = wanted,
                              .ldb = weight.columns(),
                              .b_type = wanted,
                              .transpose_b = true,
                              .ldc = weight.rows()});
  return linear;
}

std::unique_ptr<PreparedLinear> CpuBackend::prepare_quantized(const QuantizedView& weight,
                                                              const CompensatorView& ec,
                                                              const float* bias, Compute compute) {
  if (weight.bits == 16)
    return prepare_dense({weight.codes, Shape{weight.n, weight.k}, DType::kBF16}, bias, compute);
  auto linear = std::make_unique<QuantizedOnCpu>();
  linear->weight = weight;
  linear->ec = ec;
  linear->bias = bias;
  linear->compute = compute;
  return linear;
}

void CpuBackend::fill_bias(const float* bias, int64_t m, int64_t n, float* y) {
  for (int64_t i = 0; i < m; ++i)
    std::memcpy(y + i * n, bias, static_cast<size_t>(n) * sizeof(float));
}

void CpuBackend::run_dense(const DenseOnCpu& linear, int64_t m, const float* x, float* y) {
  const int64_t n = linear.weight.rows();
  const int64_t k = linear.weight.columns();
  if (linear.bias != nullptr) fill_bias(linear.bias, m, n, y);
  GemmArgs args{.m = m,
                .n = n,
                .k = k,
                .a = x,
                .lda = k,
                .a_type = linear.weight.dtype,
                .b = linear.weight.data,
                .ldb = k,
                .b_type = linear.weight.dtype,
                .transpose_b = true,
                .c = y,
                .ldc = n,
                .beta = linear.bias != nullptr ? 1.0f : 0.0f};
  if (linear.weight.dtype == DType::kBF16) {
    rounded_.reserve(static_cast<size_t>(m * k) * 2);
    auto* rounded = rounded_.as<uint16_t>();
    pool_.parallel_for(m * k, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rounded[i] = bf16_from_float(x[i]);
    });
    args.a = rounded;
  }
  kernel_for(args).run(args, &pool_);
}

void CpuBackend::linear(const PreparedLinear& linear, int64_t m, const float* x, float* y) {
  if (m == 0) return;
  if (const auto* dense = dynamic_cast<const DenseOnCpu*>(&linear))
    return run_dense(*dense, m, x, y);
  const auto* quantized = dynamic_cast<const QuantizedOnCpu*>(&linear);
  expects(quantized != nullptr);
  const bool exact = quantized->compute == Compute::kF32;
  const DType type = exact ? DType::kF32 : DType::kBF16;
  const GemmArgs shape{.m = m,
                       .n = quantized->weight.n,
                       .k = quantized->weight.k,
                       .lda = quantized->weight.k,
                       .a_type = type,
                       .ldb = quantized->weight.k,
                       .b_type = type,
                       .transpose_b = true,
                       .ldc = quantized->weight.n};
  cpu::w4_linear({m, x, quantized->weight, quantized->ec, quantized->bias, y}, exact, workspace_,
                 pool_, kernel_for(shape));
}

void CpuBackend::embed(const PreparedLinear& table, int64_t m, const int32_t* tokens, float* y) {
  const int64_t k = table.in_features();
  if (const auto* quantized = dynamic_cast<const QuantizedOnCpu*>(&table)) {
    for (int64_t i = 0; i < m; ++i)
      dequantize_rows(quantized->weight, tokens[i], tokens[i] + 1, y + i * k);
    return;
  }
  const auto* dense = dynamic_cast<const DenseOnCpu*>(&table);
  expects(dense != nullptr);
  for (int64_t i = 0; i < m; ++i) {
    float* row = y + i * k;
    if (dense->weight.dtype == DType::kF32) {
      std::memcpy(row, static_cast<const float*>(dense->weight.data) + tokens[i] * k,
                  static_cast<size_t>(k) * sizeof(float));
    } else {
      const auto* bits = static_cast<const uint16_t*>(dense->weight.data) + tokens[i] * k;
      for (int64_t j = 0; j < k; ++j) row[j] = float_from_bf16(bits[j]);
    }
  }
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cpu_backend(ThreadPool& pool, std::string_view force_kernel) {
  std::vector<GemmKernel> kernels = gemm_kernels();
  std::vector<const cpu::PackedKernels*> packed = cpu::usable_packed_kernels();
  if (!force_kernel.empty()) {
    std::string known;
    bool found = false;
    const auto is_forced = [&](const char* name) {
      known += fmt::format("{}{}", known.empty() ? "" : ", ", name);
      found = found || name == force_kernel;
      return name == force_kernel;
    };
    std::vector<GemmKernel> forced;
    for (const GemmKernel& kernel : kernels)
      if (is_forced(kernel.name)) forced.push_back(kernel);
    for (const cpu::PackedKernels* kernel : std::vector(packed))
      if (is_forced(kernel->name)) packed = {kernel};
    if (!found)
      return fail(
          ErrorCode::kUnsupported,
          fmt::format(
              "kernel '{}' cannot run on this machine or is not in this build; usable here: {}",
              force_kernel, known));
    if (!forced.empty()) kernels = std::move(forced);
  }
  return std::make_unique<CpuBackend>(pool, std::move(kernels), *packed.front());
}

}  // namespace spear
