#include "spear/model/gradients.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "spear/base/check.h"
#include "spear/base/thread_pool.h"
#include "spear/model/gradients_device.h"
#include "spear/model/gradients_graph_reverse.h"

namespace spear {
namespace {

using gradients::Graph;
using gradients::GraphBatch;
using gradients::GraphEnds;
using gradients::Product;

class Stopwatch {
 public:
  explicit Stopwatch(double& into) : into_(into), begin_(std::chrono::steady_clock::now()) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() {
    into_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  double& into_;
  std::chrono::steady_clock::time_point begin_;
};

// Ops of gradients_graph.h over a backend that works in host memory.
template <class FactorType>
class BackendOps {
 public:
  using Real = float;
  using Factor = FactorType;

  BackendOps(Backend& backend, ThreadPool& pool, const ModelConfig& config)
      : backend_(backend),
        pool_(pool),
        config_(config),
        inverse_frequencies_(rope_inverse_frequencies(config)) {}

  static Factor to_factor(float value) {
    if constexpr (std::is_same_v<Factor, float>)
      return value;
    else
      return bf16_from_float(value);
  }
  static float from_factor(Factor value) {
    if constexpr (std::is_same_v<Factor, float>)
      return value;
    else
      return float_from_bf16(value);
  }

  template <class Body>
  void parallel(int64_t count, int64_t grain, const Body& body) {
    const Stopwatch watch(times.small);
    pool_.parallel_for(count, grain, body);
  }

  void gemm(const Product<float, Factor>& p) {
    const Stopwatch watch(times.products);
    constexpr DType kType = std::is_same_v<Factor, float> ? DType::kF32 : DType::kBF16;
    GemmArgs args;
    args.m = p.m;
    args.n = p.n;
    args.k = p.k;
    args.a = p.a;
    args.lda = p.lda;
    args.a_type = kType;
    args.transpose_a = p.transpose_a;
    args.b = p.b;
    args.ldb = p.ldb;
    args.b_type = kType;
    args.transpose_b = p.transpose_b;
    args.c = p.c;
    args.ldc = p.ldc;
    backend_.gemm(args);
  }
  void rms_norm(int64_t m, int64_t n, const float* x, const float* weight, float* y,
                float* inverse) {
    const Stopwatch watch(times.small);
    backend_.rms_norm({.m = m,
                       .n = n,
                       .x = x,
                       .weight = weight,
                       .eps = static_cast<float>(config_.rms_norm_eps),
                       .y = y,
                       .inverse_rms = inverse});
  }
  void rms_norm_backward(int64_t m, int64_t n, const float* x, const float* weight,
                         const float* inverse, const float* dy, float* dx, float* dweight) {
    const Stopwatch watch(times.small);
    backend_.rms_norm_backward({.m = m,
                                .n = n,
                                .x = x,
                                .weight = weight,
                                .inverse_rms = inverse,
                                .dy = dy,
                                .dx = dx,
                                .dweight = dweight});
  }
  void rope(int64_t m, int64_t heads, int64_t head_dim, float* x, const int32_t* positions,
            bool inverse) {
    const Stopwatch watch(times.small);
    backend_.rope({.m = m,
                   .heads = heads,
                   .head_dim = head_dim,
                   .x = x,
                   .row_stride = heads * head_dim,
                   .positions = positions,
                   .inverse_frequencies = inverse_frequencies_.data(),
                   .inverse = inverse});
  }
  void silu_mul(int64_t count, const float* gate, const float* up, float* y) {
    const Stopwatch watch(times.small);
    backend_.silu_mul({.count = count, .gate = gate, .up = up, .y = y});
  }
  void silu_mul_backward(int64_t count, const float* gate, const float* up, const float* dy,
                         float* dgate, float* dup) {
    const Stopwatch watch(times.small);
    backend_.silu_mul_backward(
        {.count = count, .gate = gate, .up = up, .dy = dy, .dgate = dgate, .dup = dup});
  }
  void attention(int64_t batch, int64_t length, const float* q, const float* k, const float* v,
                 float* y, float* log_sum) {
    const Stopwatch watch(times.attention);
    backend_.dense_attention(attention_args(batch, length, q, k, v, y, log_sum));
  }
  void attention_backward(int64_t batch, int64_t length, const float* q, const float* k,
                          const float* v, const float* y, const float* log_sum, const float* dy,
                          float* dq, float* dk, float* dv) {
    const Stopwatch watch(times.attention);
    DenseAttentionBackwardArgs args;
    args.forward =
        attention_args(batch, length, q, k, v, const_cast<float*>(y), const_cast<float*>(log_sum));
    args.dy = dy;
    args.dq = dq;
    args.dk = dk;
    args.dv = dv;
    backend_.dense_attention_backward(args);
  }
  void rotate(int64_t m, const RotationView& rotation, bool inverse, float* x) {
    const Stopwatch watch(times.small);
    backend_.rotate({.m = m, .rotation = rotation, .inverse = inverse, .x = x});
  }
  void kl(int64_t m, int64_t vocab, const float* teacher, float* student, double temperature,
          double scale, float* kl) {
    const Stopwatch watch(times.loss);
    backend_.kl_divergence({.m = m,
                            .vocab = vocab,
                            .teacher = teacher,
                            .student = student,
                            .temperature = static_cast<float>(temperature),
                            .gradient_scale = static_cast<float>(scale),
                            .kl = kl});
  }

  PassTimes times;

 private:
  DenseAttentionArgs attention_args(int64_t batch, int64_t length, const float* q, const float* k,
                                    const float* v, float* y, float* log_sum) const {
    DenseAttentionArgs args;
    args.batch = batch;
    args.length = length;
    args.heads = config_.num_attention_heads;
    args.kv_heads = config_.num_key_value_heads;
    args.head_dim = config_.head_dim;
    args.q = q;
    args.k = k;
    args.v = v;
    args.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    args.y = y;
    args.log_sum = log_sum;
    return args;
  }

  Backend& backend_;
  ThreadPool& pool_;
  const ModelConfig& config_;
  std::vector<float> inverse_frequencies_;
};

template <class Factor>
class BackendReversePass final : public ReversePass {
 public:
  using Ops = BackendOps<Factor>;

  BackendReversePass(const StudentModel& student, TensorView reference_head, Backend& backend,
                     ThreadPool& pool, const ReversePassOptions& options)
      : ops_(backend, pool, student.base->config),
        width_(student.base->config.hidden_size),
        student_head_(dequantized(student.base->head_matrix().view(), pool)),
        teacher_head_(converted(reference_head)),
        graph_(
            student,
            GraphEnds<Ops>{student_head_.data(),
                           teacher_head_.empty() ? static_cast<const Factor*>(reference_head.data)
                                                 : teacher_head_.data()},
            ops_, options.keep_activations, options.keep_matrices) {
    expects(reference_head.rows() == student.base->config.vocab_size &&
            reference_head.columns() == width_);
  }

  double loss(std::span<const float> values, const StudentBatch& batch) override {
    const Stopwatch watch(ops_.times.total);
    return graph_.loss(values.data(), batch_of(batch));
  }
  double loss_from(int32_t first_layer, std::span<const float> values,
                   const StudentBatch& batch) override {
    const Stopwatch watch(ops_.times.total);
    return graph_.loss_from(static_cast<size_t>(first_layer), values.data(), batch_of(batch));
  }
  double loss_and_gradient(std::span<const float> values, const StudentBatch& batch, KindSet wanted,
                           double weight, std::span<float> gradients) override {
    const Stopwatch watch(ops_.times.total);
    expects(gradients.size() == values.size());
    return graph_.loss_and_gradient(values.data(), batch_of(batch), wanted, weight,
                                    gradients.data());
  }
  void hidden(std::span<const float> values, std::span<const int32_t> tokens, int64_t sequences,
              int64_t length, std::span<float> out) override {
    const Stopwatch watch(ops_.times.total);
    expects(static_cast<int64_t>(out.size()) == sequences * length * width_);
    const float* rows = graph_.hidden(values.data(), tokens, sequences, length);
    std::copy(rows, rows + out.size(), out.begin());
  }
  [[nodiscard]] const PassTimes& times() const override { return ops_.times; }

 private:
  static std::vector<Factor> dequantized(const QuantizedView& view, ThreadPool& pool) {
    std::vector<Factor> out(static_cast<size_t>(view.n) * static_cast<size_t>(view.k));
    pool.parallel_for(view.n, 64, [&](int64_t begin, int64_t end) {
      Factor* rows = out.data() + begin * view.k;
      if constexpr (std::is_same_v<Factor, float>)
        dequantize_rows(view, begin, end, rows);
      else
        dequantize_rows_bf16(view, begin, end, rows);
    });
    return out;
  }
  // Empty where it can be read as it stands: a head is up to half a gigabyte.
  static std::vector<Factor> converted(TensorView weight) {
    if (weight.dtype == (std::is_same_v<Factor, float> ? DType::kF32 : DType::kBF16)) return {};
    const auto count = static_cast<size_t>(weight.shape.count());
    std::vector<Factor> out(count);
    if (weight.dtype == DType::kF32) {
      std::transform(static_cast<const float*>(weight.data),
                     static_cast<const float*>(weight.data) + count, out.begin(), Ops::to_factor);
      return out;
    }
    expects(weight.dtype == DType::kBF16);
    const auto* bits = static_cast<const uint16_t*>(weight.data);
    for (size_t i = 0; i < count; ++i) out[i] = Ops::to_factor(float_from_bf16(bits[i]));
    return out;
  }
  GraphBatch<Factor> batch_of(const StudentBatch& batch) {
    expects(static_cast<int64_t>(batch.teacher.size()) == batch.sequences * batch.length * width_);
    GraphBatch<Factor> out;
    out.tokens = batch.tokens;
    out.sequences = batch.sequences;
    out.length = batch.length;
    out.temperature = batch.temperature;
    if constexpr (std::is_same_v<Factor, float>) {
      teacher_.resize(batch.teacher.size());
      std::transform(batch.teacher.begin(), batch.teacher.end(), teacher_.begin(), float_from_bf16);
      out.teacher = teacher_.data();
    } else {
      out.teacher = batch.teacher.data();
    }
    return out;
  }

  Ops ops_;
  int64_t width_;
  std::vector<Factor> student_head_, teacher_head_, teacher_;
  Graph<Ops> graph_;
};

}  // namespace

std::unique_ptr<ReversePass> make_reverse_pass(const StudentModel& student,
                                               TensorView reference_head, Backend& backend,
                                               ThreadPool& pool,
                                               const ReversePassOptions& options) {
  if (backend.training_ops() != nullptr)
    return make_device_reverse_pass(student, reference_head, backend, options);
  if (options.compute == Compute::kF32)
    return std::make_unique<BackendReversePass<float>>(student, reference_head, backend, pool,
                                                       options);
  return std::make_unique<BackendReversePass<uint16_t>>(student, reference_head, backend, pool,
                                                        options);
}

size_t reverse_pass_bytes(const StudentModel& student, int64_t tokens,
                          const ReversePassOptions& options) {
  const ModelConfig& config = student.base->config;
  const int64_t factor = options.compute == Compute::kF32 ? 4 : 2;
  int64_t inputs = 0, outputs = 0, weights = 0, widest = 0;
  for (const Module m : kModules) {
    const StudentLinear& linear = student.layers.front().linear(m);
    outputs += linear.n + 2 * linear.rank;
    weights += int64_t{linear.n} * linear.k;
    widest = std::max<int64_t>(widest, linear.n);
  }
  for (int s = 0; s < kSitesPerLayer; ++s) inputs += site_width(config, static_cast<InputSite>(s));
  const int64_t per_layer =
      tokens * (inputs * factor + 4 * (outputs + 2 * config.q_size() + config.kv_size() +
                                       config.hidden_size + config.num_attention_heads + 4));
  const auto layers = static_cast<int64_t>(student.layers.size());
  const int64_t products = tokens * outputs * (4 + factor);
  const int64_t passing =
      tokens * 4 * (4 * config.intermediate_size + 8 * config.hidden_size + 4 * config.q_size());
  const int64_t chunk = std::max<int64_t>(int64_t{1} << 24, 16 * config.vocab_size) * (8 + factor);
  const int64_t heads = 2 * config.vocab_size * config.hidden_size * factor;
  const int64_t optimizer = static_cast<int64_t>(student.start.size()) * 4 * 5;
  return static_cast<size_t>(per_layer * (options.keep_activations ? layers : 1) +
                             tokens * config.hidden_size * 4 * (layers + 1) + products + passing +
                             chunk + heads + optimizer +
                             weights * factor * (options.keep_matrices ? layers : 1));
}

}  // namespace spear
