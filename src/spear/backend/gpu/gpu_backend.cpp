// One NVIDIA GPU as a backend: cuBLAS for dense products, kernels/gpu for everything else, all on
// one stream. Operations return before they are done; download() and synchronize() wait.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <fmt/format.h>

#include "spear/backend/backend.h"
#include "spear/backend/gpu/gpu_program.h"
#include "spear/backend/gpu/gpu_training_ops.h"
#include "spear/base/check.h"
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"

namespace spear {
namespace {

void check_blas(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Failure(ErrorCode::kInternal, fmt::format("cuBLAS: {}", cublasGetStatusString(status)));
}

struct StreamHandle {
  cudaStream_t value = nullptr;
  StreamHandle() { gpu::check(cudaStreamCreateWithFlags(&value, cudaStreamNonBlocking)); }
  StreamHandle(const StreamHandle&) = delete;
  StreamHandle& operator=(const StreamHandle&) = delete;
  ~StreamHandle() { (void)cudaStreamDestroy(value); }
};

struct BlasHandle {
  cublasHandle_t value = nullptr;
  explicit BlasHandle(cudaStream_t stream) {
    check_blas(cublasCreate(&value));
    check_blas(cublasSetStream(value, stream));
    // FP32 products stay FP32: the exact path must not become TF32.
    check_blas(cublasSetMathMode(value, CUBLAS_DEFAULT_MATH));
  }
  BlasHandle(const BlasHandle&) = delete;
  BlasHandle& operator=(const BlasHandle&) = delete;
  ~BlasHandle() { (void)cublasDestroy(value); }
};

struct LinearOnGpu : PreparedLinear {
  int64_t n = 0, k = 0;
  DeviceBuffer bias;  // [n] f32, or empty
  Compute compute = Compute::kF32;
  int64_t in_features() const override { return k; }
  int64_t out_features() const override { return n; }
};

struct DenseOnGpu final : LinearOnGpu {
  DeviceBuffer weight;  // [n, k] in the type computed in
  std::string_view kernel() const override { return "cuda.cublas"; }
};

struct QuantizedOnGpu final : LinearOnGpu {
  DeviceBuffer codes, scales, zeros, gate;
  DeviceBuffer a, b;     // the factors as F32 [rank, k], [rank, n]
  QuantizedView weight;  // into the buffers above
  CompensatorView ec;    // rank and gate; the factors' own pointers are not used
  std::string_view kernel() const override { return "cuda.dequantize+cublas"; }
};

class GpuBackend final : public Backend {
 public:
  GpuBackend(int device, bool fused)
      : fused_(fused),
        name_(fmt::format("cuda:{}", device)),
        blas_(stream_.value),
        training_(stream_.value, [this](int64_t floats) { return scratch(partials_, floats); }) {
    cudaDeviceProp properties{};
    gpu::check(cudaGetDeviceProperties(&properties, device));
    multiprocessors_ = properties.multiProcessorCount;
    description_ = fmt::format("{}, {} multiprocessors, products cuda.cublas", properties.name,
                               properties.multiProcessorCount);
  }

  std::string_view name() const override { return name_; }
  std::string describe() const override { return description_; }

  DeviceBuffer allocate(size_t bytes) override {
    if (bytes == 0) return {};
    void* data = nullptr;
    if (const cudaError_t code = cudaMalloc(&data, bytes); code != cudaSuccess) {
      (void)cudaGetLastError();
      throw Failure(
          ErrorCode::kUnsupported,
          fmt::format(
              "{}: cannot allocate {} MiB of GPU memory: {}; use a smaller batch or context", name_,
              bytes >> 20, cudaGetErrorString(code)));
    }
    return DeviceBuffer(data, bytes, [](void* p) { (void)cudaFree(p); });
  }
  void upload(void* device, const void* host, size_t bytes) override {
    gpu::check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_.value));
  }
  void download(void* host, const void* device, size_t bytes) override {
    gpu::check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_.value));
    synchronize();
  }
  void copy(const float* from, float* to, int64_t count) override {
    gpu::check(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(float),
                               cudaMemcpyDeviceToDevice, stream_.value));
  }
  void synchronize() override { gpu::check(cudaStreamSynchronize(stream_.value)); }

  std::unique_ptr<PreparedLinear> prepare_dense(TensorView weight, const float* bias,
                                                Compute compute) override;
  std::unique_ptr<PreparedLinear> prepare_quantized(const QuantizedView& weight,
                                                    const CompensatorView& ec, const float* bias,
                                                    Compute compute) override;
  void linear(const PreparedLinear& linear, int64_t m, const float* x, float* y) override;
  void embed(const PreparedLinear& table, int64_t m, const int32_t* tokens, float* y) override;
  void gemm(const GemmArgs& args) override;

  void rms_norm(const RmsNormArgs& args) override { gpu::rms_norm(args, stream_.value); }
  void rope(const RopeArgs& args) override { gpu::rope(args, stream_.value); }
  void silu_mul(const SiluMulArgs& args) override { gpu::silu_mul(args, stream_.value); }
  void add(int64_t count, const float* x, float* y) override {
    gpu::add(count, x, y, stream_.value);
  }
  void rotate(const RotateArgs& args) override { gpu::rotate(args, stream_.value); }
  void kv_append(const KvAppendArgs& args) override {
    KvAppendArgs on_device = args;
    on_device.sequences =
        upload_sequences(args.sequences, args.sequence_count, args.cache.page_size);
    gpu::kv_append(on_device, most_rows(args.sequences, args.sequence_count), stream_.value);
  }
  void attention(const AttentionArgs& args) override {
    AttentionArgs on_device = args;
    on_device.sequences =
        upload_sequences(args.sequences, args.sequence_count, args.cache.page_size);
    gpu::attention(on_device, most_rows(args.sequences, args.sequence_count), stream_.value);
  }
  void log_sum_exp(const LogSumExpArgs& args) override { gpu::log_sum_exp(args, stream_.value); }
  void kl_divergence(const KlArgs& args) override { gpu::kl_divergence(args, stream_.value); }
  void rms_norm_backward(const RmsNormBackwardArgs& args) override {
    const auto floats = args.dweight != nullptr ? gpu::norm_partial_rows(args.m) * args.n : 0;
    gpu::rms_norm_backward(args, scratch(partials_, floats), stream_.value);
  }
  void silu_mul_backward(const SiluMulBackwardArgs& args) override {
    gpu::silu_mul_backward(args, stream_.value);
  }
  void dense_attention(const DenseAttentionArgs& args) override {
    gpu::dense_attention(args, stream_.value);
  }
  void dense_attention_backward(const DenseAttentionBackwardArgs& args) override {
    const DenseAttentionArgs& f = args.forward;
    gpu::dense_attention_backward(args, scratch(partials_, f.batch * f.length * f.heads),
                                  stream_.value);
  }

  TrainingOps* training_ops() override { return &training_; }

  std::unique_ptr<DecoderProgram> compile(const DecoderSpec& spec, Activations activations,
                                          std::string* why) override {
    if (!fused_) {
      if (why != nullptr) *why = "SPEAR_FORCE_KERNEL=cuda.fused asks for the fused step";
      return nullptr;
    }
    return make_gpu_program(spec, activations, {this, stream_.value, multiprocessors_}, why);
  }

 private:
  DeviceBuffer put(const void* host, size_t bytes) {
    DeviceBuffer buffer = allocate(bytes);
    if (bytes > 0) upload(buffer.as<void>(), host, bytes);
    return buffer;
  }
  // Device memory that grows; work queued on the old block ends before it is freed.
  float* scratch(DeviceBuffer& buffer, int64_t floats) {
    const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
    if (buffer.bytes() < bytes) {
      synchronize();
      buffer = allocate(bytes);
    }
    return buffer.as<float>();
  }
  static int64_t most_rows(const AttentionSequence* sequences, int64_t count) {
    int64_t most = 0;
    for (int64_t i = 0; i < count; ++i) most = std::max(most, sequences[i].rows);
    return most;
  }
  AttentionSequence* upload_sequences(const AttentionSequence* sequences, int64_t count,
                                      int64_t page_size);
  void product(int64_t m, int64_t n, int64_t k, const void* a, const void* b, bool transpose_b,
               DType type, float* c, float beta);
  void add_compensator(const QuantizedOnGpu& linear, int64_t m, const float* x, float* y);

  bool fused_;
  std::string name_, description_;
  int32_t multiprocessors_ = 0;
  StreamHandle stream_;
  BlasHandle blas_;
  DeviceBuffer rounded_, expanded_, partials_, low_rank_, tables_;
  std::vector<std::byte> staging_;
  GpuTrainingOps training_;
};

// One block: the sequences, then every block table; page pointers are rewritten to device
// addresses.
AttentionSequence* GpuBackend::upload_sequences(const AttentionSequence* sequences, int64_t count,
                                                int64_t page_size) {
  const auto pages_of = [&](const AttentionSequence& s) {
    return static_cast<size_t>((s.context + s.rows + page_size - 1) / page_size);
  };
  size_t bytes = static_cast<size_t>(count) * sizeof(AttentionSequence);
  for (int64_t i = 0; i < count; ++i) bytes += pages_of(sequences[i]) * sizeof(int32_t);
  scratch(tables_, static_cast<int64_t>(bytes / sizeof(float) + 1));
  auto* device = tables_.as<std::byte>();
  std::vector<std::byte> host(bytes);
  auto* entries = reinterpret_cast<AttentionSequence*>(host.data());
  size_t at = static_cast<size_t>(count) * sizeof(AttentionSequence);
  for (int64_t i = 0; i < count; ++i) {
    entries[i] = sequences[i];
    const size_t table = pages_of(sequences[i]) * sizeof(int32_t);
    std::copy_n(reinterpret_cast<const std::byte*>(sequences[i].pages), table, host.data() + at);
    entries[i].pages = reinterpret_cast<const int32_t*>(device + at);
    at += table;
  }
  if (host != staging_) {  // unchanged from layer to layer of one batch
    upload(device, host.data(), bytes);
    staging_ = std::move(host);
  }
  return reinterpret_cast<AttentionSequence*>(device);
}

// Row-major c[m, n] = a[m, k] · op(b): cuBLAS is column-major, so it computes cᵀ = op(b)ᵀ · aᵀ.
void GpuBackend::product(int64_t m, int64_t n, int64_t k, const void* a, const void* b,
                         bool transpose_b, DType type, float* c, float beta) {
  gemm({.m = m,
        .n = n,
        .k = k,
        .a = a,
        .lda = k,
        .a_type = type,
        .b = b,
        .ldb = transpose_b ? k : n,
        .b_type = type,
        .transpose_b = transpose_b,
        .c = c,
        .ldc = n,
        .beta = beta});
}

void GpuBackend::gemm(const GemmArgs& args) {
  expects(args.a_type == args.b_type &&
          (args.a_type == DType::kF32 || args.a_type == DType::kBF16));
  if (args.m == 0 || args.n == 0) return;
  const cudaDataType_t type = args.a_type == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
  check_blas(cublasGemmEx(blas_.value, args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                          args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, static_cast<int>(args.n),
                          static_cast<int>(args.m), static_cast<int>(args.k), &args.alpha, args.b,
                          type, static_cast<int>(args.ldb), args.a, type,
                          static_cast<int>(args.lda), &args.beta, args.c, CUDA_R_32F,
                          static_cast<int>(args.ldc), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

std::unique_ptr<PreparedLinear> GpuBackend::prepare_dense(TensorView weight, const float* bias,
                                                          Compute compute) {
  auto linear = std::make_unique<DenseOnGpu>();
  linear->n = weight.rows();
  linear->k = weight.columns();
  linear->compute = compute;
  if (bias != nullptr) linear->bias = put(bias, static_cast<size_t>(linear->n) * sizeof(float));
  const int64_t count = weight.shape.count();
  const bool want_bf16 = compute == Compute::kBF16;
  if (want_bf16 == (weight.dtype == DType::kBF16)) {
    linear->weight = put(weight.data, weight.bytes());
  } else if (want_bf16) {
    const DeviceBuffer full = put(weight.data, weight.bytes());
    linear->weight = allocate(static_cast<size_t>(count) * 2);
    gpu::round_to_bf16(count, full.as<float>(), linear->weight.as<uint16_t>(), stream_.value);
    synchronize();
  } else {
    const auto* bits = static_cast<const uint16_t*>(weight.data);
    std::vector<float> full(static_cast<size_t>(count));
    std::transform(bits, bits + count, full.begin(), float_from_bf16);
    linear->weight = put(full.data(), full.size() * sizeof(float));
    synchronize();
  }
  return linear;
}

std::unique_ptr<PreparedLinear> GpuBackend::prepare_quantized(const QuantizedView& weight,
                                                              const CompensatorView& ec,
                                                              const float* bias, Compute compute) {
  if (weight.bits == 16)
    return prepare_dense({weight.codes, Shape{weight.n, weight.k}, DType::kBF16}, bias, compute);
  auto linear = std::make_unique<QuantizedOnGpu>();
  linear->n = weight.n;
  linear->k = weight.k;
  linear->compute = compute;
  if (bias != nullptr) linear->bias = put(bias, static_cast<size_t>(linear->n) * sizeof(float));
  linear->codes = put(weight.codes, weight.code_bytes());
  linear->scales = put(weight.scales, weight.scale_count() * 2);
  linear->zeros = put(weight.zeros, weight.zero_bytes());
  linear->weight = weight;
  linear->weight.codes = linear->codes.as<uint8_t>();
  linear->weight.scales = linear->scales.as<uint16_t>();
  linear->weight.zeros = linear->zeros.as<void>();
  linear->ec = ec;
  if (ec.rank > 0) {
    const auto expand = [&](const void* factor, const uint16_t* scales, int32_t columns) {
      const size_t row_bytes =
          ec.factor_bits == 16
              ? static_cast<size_t>(columns) * 2
              : (static_cast<size_t>(columns) * static_cast<size_t>(ec.factor_bits) + 7) / 8;
      const auto rank = static_cast<size_t>(ec.rank);
      const DeviceBuffer packed = put(factor, rank * row_bytes);
      const DeviceBuffer factor_scales = put(scales, ec.factor_bits == 16 ? 0 : rank * 2);
      DeviceBuffer full = allocate(rank * static_cast<size_t>(columns) * sizeof(float));
      gpu::expand_factor(packed.as<void>(), factor_scales.as<uint16_t>(), ec.factor_bits, ec.rank,
                         columns, full.as<float>(), stream_.value);
      synchronize();
      return full;
    };
    linear->a = expand(ec.a, ec.a_scales, weight.k);
    linear->b = expand(ec.b, ec.b_scales, weight.n);
    if (ec.gate_hidden > 0) {
      const auto wide = static_cast<size_t>(ec.gate_hidden) * static_cast<size_t>(ec.rank);
      const auto hidden = static_cast<size_t>(ec.gate_hidden);
      linear->gate = allocate((2 * wide + hidden + static_cast<size_t>(ec.rank)) * 2);
      auto* at = linear->gate.as<uint16_t>();
      const auto place = [&](const uint16_t* host, size_t count) {
        upload(at, host, count * 2);
        const uint16_t* placed = at;
        at += count;
        return placed;
      };
      linear->ec.w1 = place(ec.w1, wide);
      linear->ec.b1 = place(ec.b1, hidden);
      linear->ec.w2 = place(ec.w2, wide);
      linear->ec.b2 = place(ec.b2, static_cast<size_t>(ec.rank));
      synchronize();
    }
  }
  return linear;
}

// y += (γ(z) ⊙ z) · B with z = x · Aᵀ, in FP32: thin products, exact on both paths.
void GpuBackend::add_compensator(const QuantizedOnGpu& linear, int64_t m, const float* x,
                                 float* y) {
  float* z = scratch(low_rank_, m * linear.ec.rank);
  product(m, linear.ec.rank, linear.k, x, linear.a.as<float>(), true, DType::kF32, z, 0.0f);
  gpu::apply_gate(linear.ec, m, z, stream_.value);
  product(m, linear.n, linear.ec.rank, z, linear.b.as<float>(), false, DType::kF32, y, 1.0f);
}

void GpuBackend::linear(const PreparedLinear& linear, int64_t m, const float* x, float* y) {
  if (m == 0) return;
  const auto& common = dynamic_cast<const LinearOnGpu&>(linear);
  const int64_t n = common.n;
  const int64_t k = common.k;
  const bool bf16 = common.compute == Compute::kBF16;
  const DType type = bf16 ? DType::kBF16 : DType::kF32;
  const void* in = x;
  if (bf16) {
    auto* rounded = reinterpret_cast<uint16_t*>(scratch(rounded_, (m * k + 1) / 2));
    gpu::round_to_bf16(m * k, x, rounded, stream_.value);
    in = rounded;
  }
  const auto* quantized = dynamic_cast<const QuantizedOnGpu*>(&common);
  const void* weight = nullptr;
  if (quantized != nullptr) {
    float* expanded = scratch(expanded_, bf16 ? (n * k + 1) / 2 : n * k);
    if (bf16)
      gpu::dequantize(quantized->weight, reinterpret_cast<uint16_t*>(expanded), stream_.value);
    else
      gpu::dequantize(quantized->weight, expanded, stream_.value);
    weight = expanded;
  } else {
    weight = dynamic_cast<const DenseOnGpu&>(common).weight.as<void>();
  }
  product(m, n, k, in, weight, true, type, y, 0.0f);
  if (quantized != nullptr && quantized->ec.rank > 0) add_compensator(*quantized, m, x, y);
  if (common.bias.bytes() > 0) gpu::add_bias(m, n, common.bias.as<float>(), y, stream_.value);
}

void GpuBackend::embed(const PreparedLinear& table, int64_t m, const int32_t* tokens, float* y) {
  if (const auto* quantized = dynamic_cast<const QuantizedOnGpu*>(&table))
    return gpu::embed_quantized(quantized->weight, m, tokens, y, stream_.value);
  const auto& dense = dynamic_cast<const DenseOnGpu&>(table);
  if (dense.compute == Compute::kBF16)
    gpu::embed_rows(m, dense.k, dense.weight.as<uint16_t>(), tokens, y, stream_.value);
  else
    gpu::embed_rows(m, dense.k, dense.weight.as<float>(), tokens, y, stream_.value);
}

}  // namespace

Result<std::unique_ptr<Backend>> make_gpu_backend(int device, std::string_view force_kernel) {
  const bool fused = force_kernel == "cuda.fused";
  if (!fused && !force_kernel.empty() && force_kernel != "cuda.cublas")
    return fail(ErrorCode::kUnsupported,
                fmt::format("no GPU kernel is named {}: cuda.fused, cuda.cublas", force_kernel));
  int count = 0;
  if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess || count == 0)
    return fail(ErrorCode::kUnsupported,
                fmt::format("no CUDA device: {}; use --device cpu",
                            code == cudaSuccess ? "none is present" : cudaGetErrorString(code)));
  if (device < 0 || device >= count)
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("cuda:{} does not exist: this machine has {} CUDA device(s)", device, count));
  gpu::check(cudaSetDevice(device));
  return std::make_unique<GpuBackend>(device, fused);
}

}  // namespace spear
