#include "spear/model/gradients_device.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "spear/base/check.h"
#include "spear/model/gradients_device_pass.h"

namespace spear {
namespace {

constexpr int64_t kLogitFloats = int64_t{1}
                                 << 27;  // of the teacher and of the student that exist at once

}  // namespace

DeviceReversePass::DeviceReversePass(const StudentModel& student, TensorView reference_head,
                                     Backend& backend)
    : student_(student),
      config_(student.base->config),
      backend_(backend),
      ops_(*backend.training_ops()),
      embedding_(
          backend.prepare_quantized(student.base->embedding.view(), {}, nullptr, Compute::kBF16)),
      states_(student.layers.size()),
      inputs_(student.layers.size() + 1) {
  for (const StudentLayer& layer : student.layers)
    for (const StudentLinear& linear : layer.linears)
      frozen_.push_back({put(linear.codes), put(linear.scales)});
  inverse_frequencies_ = put(rope_inverse_frequencies(config_));
  student_head_ = head_of_student();
  teacher_head_ = head_of_teacher(reference_head);
  if (student.base->rotation) {
    const ResidualRotation& r = *student.base->rotation;
    signs_in_ = put(r.signs_in);
    factor_ = put(r.factor);
    signs_out_ = put(r.signs_out);
    rotation_ = r.view();
    rotation_.signs_in = signs_in_.as<float>();
    rotation_.factor = factor_.as<float>();
    rotation_.signs_out = signs_out_.as<float>();
  }
  backend_.synchronize();
}

double DeviceReversePass::loss(std::span<const float> values, const StudentBatch& batch) {
  begin(values, batch.tokens, batch.sequences, batch.length);
  for (size_t l = 0; l < states_.size(); ++l) run_layer(l);
  return finish(batch, 0, nullptr);
}

double DeviceReversePass::loss_from(int32_t first_layer, std::span<const float> values,
                                    const StudentBatch& batch) {
  expects(rows_ == batch.sequences * batch.length && length_ == batch.length);
  upload_values(values);
  for (size_t l = static_cast<size_t>(first_layer); l < states_.size(); ++l) run_layer(l);
  return finish(batch, 0, nullptr);
}

double DeviceReversePass::loss_and_gradient(std::span<const float> values,
                                            const StudentBatch& batch, KindSet wanted,
                                            double weight, std::span<float> gradients) {
  expects(gradients.size() == values.size());
  const auto start = std::chrono::steady_clock::now();
  begin(values, batch.tokens, batch.sequences, batch.length);
  for (size_t l = 0; l < states_.size(); ++l) run_layer(l);
  wanted_ = wanted;
  const auto count = static_cast<int64_t>(values.size());
  ops_.fill(count, 0.0f, gradients_.floats(backend_, count));
  float* dx = dx_.floats(backend_, rows_ * config_.hidden_size);
  const double kl = finish(batch, weight, dx);
  for (size_t l = states_.size(); l-- > 0;) reverse_layer(l, dx);
  host_gradients_.resize(values.size());
  backend_.download(host_gradients_.data(), gradients_.data(), values.size() * sizeof(float));
  for (size_t i = 0; i < gradients.size(); ++i) gradients[i] += host_gradients_[i];
  times_.total += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return kl;
}

void DeviceReversePass::hidden(std::span<const float> values, std::span<const int32_t> tokens,
                               int64_t sequences, int64_t length, std::span<float> out) {
  begin(values, tokens, sequences, length);
  for (size_t l = 0; l < states_.size(); ++l) run_layer(l);
  final_hidden();
  backend_.download(out.data(), final_hidden_.data(), out.size() * sizeof(float));
}

DeviceBuffer DeviceReversePass::head_of_student() {
  const QuantizedView view = student_.base->head_matrix().view();
  std::vector<uint16_t> rows(static_cast<size_t>(view.n) * static_cast<size_t>(view.k));
  dequantize_rows_bf16(view, 0, view.n, rows.data());
  DeviceBuffer buffer = put(rows);
  backend_.synchronize();
  return buffer;
}

DeviceBuffer DeviceReversePass::head_of_teacher(TensorView weight) {
  expects(weight.rows() == config_.vocab_size && weight.columns() == config_.hidden_size);
  const int64_t count = weight.shape.count();
  std::vector<uint16_t> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    rows[static_cast<size_t>(i)] = weight.dtype == DType::kBF16
                                       ? static_cast<const uint16_t*>(weight.data)[i]
                                       : bf16_from_float(static_cast<const float*>(weight.data)[i]);
  DeviceBuffer buffer = put(rows);
  backend_.synchronize();
  return buffer;
}

void DeviceReversePass::product(int64_t m, int64_t n, int64_t k, const void* a, bool transpose_a,
                                const void* b, bool transpose_b, DType type, float* c, float beta) {
  GemmArgs args;
  args.m = m;
  args.n = n;
  args.k = k;
  args.a = a;
  args.lda = transpose_a ? m : k;
  args.a_type = type;
  args.transpose_a = transpose_a;
  args.b = b;
  args.ldb = transpose_b ? k : n;
  args.b_type = type;
  args.transpose_b = transpose_b;
  args.c = c;
  args.ldc = n;
  args.beta = beta;
  backend_.gemm(args);
}

void DeviceReversePass::upload_values(std::span<const float> values) {
  backend_.upload(values_.floats(backend_, static_cast<int64_t>(values.size())), values.data(),
                  values.size() * sizeof(float));
}

void DeviceReversePass::norm(int64_t m, int64_t n, const float* x, int64_t slot, float* y,
                             float* inverse) {
  backend_.rms_norm({.m = m,
                     .n = n,
                     .x = x,
                     .weight = value(slot),
                     .eps = eps(),
                     .y = y,
                     .inverse_rms = inverse});
}

RopeArgs DeviceReversePass::rope_args(int64_t heads, float* x, bool inverse) const {
  return {.m = rows_,
          .heads = heads,
          .head_dim = config_.head_dim,
          .x = x,
          .row_stride = heads * config_.head_dim,
          .positions = reinterpret_cast<const int32_t*>(positions_.data()),
          .inverse_frequencies = inverse_frequencies_.as<float>(),
          .inverse = inverse};
}

GateArgs DeviceReversePass::gate_args(const StudentLinear& linear, const float* z, float* u) const {
  const float* values = values_.data();
  GateArgs args;
  args.m = rows_;
  args.rank = linear.rank;
  args.hidden = linear.gate_hidden;
  args.z = z;
  args.u = u;
  if (linear.gate_hidden == 0) return args;
  args.w1 = values + linear.slots.w1;
  args.b1 = values + linear.slots.b1;
  args.w2 = values + linear.slots.w2;
  args.b2 = values + linear.slots.b2;
  return args;
}

void DeviceReversePass::begin(std::span<const float> values, std::span<const int32_t> tokens,
                              int64_t sequences, int64_t length) {
  expects(static_cast<int64_t>(tokens.size()) == sequences * length && length > 0);
  for (const int32_t token : tokens) expects(token >= 0 && token < config_.vocab_size);
  sequences_ = sequences;
  length_ = length;
  rows_ = sequences * length;
  upload_values(values);
  std::vector<int32_t> positions(static_cast<size_t>(rows_));
  for (int64_t s = 0; s < sequences; ++s)
    std::iota(positions.begin() + s * length, positions.begin() + (s + 1) * length, 0);
  backend_.upload(positions_.floats(backend_, rows_), positions.data(),
                  positions.size() * sizeof(int32_t));
  backend_.upload(tokens_.floats(backend_, rows_), tokens.data(), tokens.size() * sizeof(int32_t));
  float* x = inputs_[0].floats(backend_, rows_ * config_.hidden_size);
  backend_.embed(*embedding_, rows_, reinterpret_cast<const int32_t*>(tokens_.data()), x);
  if (student_.base->rotation) backend_.rotate({rows_, rotation_, false, x});
}

// The module's weight as it now is, [n, k] bf16, in scratch memory.
const uint16_t* DeviceReversePass::widen(size_t layer, Module module) {
  const StudentLinear& linear = student_.layers[layer].linear(module);
  const FrozenLinear& frozen = frozen_[layer * kModulesPerLayer + static_cast<size_t>(module)];
  uint16_t* out = matrix_.halves(backend_, int64_t{linear.n} * linear.k);
  ops_.widen_codes({linear.n, linear.k, linear.group, frozen.codes.as<uint8_t>(),
                    frozen.scales.as<float>(), value(linear.slots.scale), value(linear.slots.zero),
                    static_cast<float>(1 << (linear.bits - 1)), out});
  return out;
}

void DeviceReversePass::keep_input(size_t layer, InputSite site, const float* x) {
  const int64_t k = site_width(config_, site);
  const auto s = static_cast<size_t>(site);
  uint16_t* kept = states_[layer].input[s].halves(backend_, rows_ * k);
  ops_.round_to_bf16(rows_ * k, x, kept);
  ops_.row_sums(rows_, k, kept, states_[layer].sums[s].floats(backend_, rows_));
}

void DeviceReversePass::run_module(size_t layer, Module module) {
  const StudentLinear& linear = student_.layers[layer].linear(module);
  LayerState& state = states_[layer];
  ModuleState& own = state.modules[static_cast<size_t>(module)];
  const uint16_t* x = state.input[static_cast<size_t>(input_site(module))].half_data();
  float* y = own.output.floats(backend_, rows_ * linear.n);
  product(rows_, linear.n, linear.k, x, false, widen(layer, module), true, DType::kBF16, y, 0);
  if (linear.slots.bias >= 0) ops_.add_row(rows_, linear.n, value(linear.slots.bias), y);
  if (linear.rank == 0 || !linear.compensate) return;
  const int64_t rank = linear.rank;
  uint16_t* a = a_half_.halves(backend_, rank * linear.k);
  ops_.round_to_bf16(rank * linear.k, value(linear.slots.a), a);
  float* z = own.latent.floats(backend_, rows_ * rank);
  float* u = own.gated.floats(backend_, rows_ * rank);
  product(rows_, rank, linear.k, x, false, a, true, DType::kBF16, z, 0);
  ops_.gate(gate_args(linear, z, u));
  product(rows_, linear.n, rank, u, false, value(linear.slots.b), false, DType::kF32, y, 1);
}

void DeviceReversePass::place_heads(const float* projected, int64_t slot, int64_t heads,
                                    float* inverse, float* placed) {
  if (slot >= 0)
    norm(rows_ * heads, config_.head_dim, projected, slot, placed, inverse);
  else
    backend_.copy(projected, placed, rows_ * heads * config_.head_dim);
  backend_.rope(rope_args(heads, placed, false));
}

DenseAttentionArgs DeviceReversePass::attention_args(size_t layer) {
  LayerState& state = states_[layer];
  DenseAttentionArgs args;
  args.batch = sequences_;
  args.length = length_;
  args.heads = config_.num_attention_heads;
  args.kv_heads = config_.num_key_value_heads;
  args.head_dim = config_.head_dim;
  args.q = state.q.data();
  args.k = state.k.data();
  args.v = state.modules[static_cast<size_t>(Module::kV)].output.data();
  args.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  args.y = state.attention.floats(backend_, rows_ * config_.q_size());
  args.log_sum = state.log_sum.floats(backend_, rows_ * config_.num_attention_heads);
  return args;
}

void DeviceReversePass::run_layer(size_t layer) {
  const StudentLayer& own = student_.layers[layer];
  LayerState& state = states_[layer];
  const int64_t width = config_.hidden_size;
  const float* x = inputs_[layer].data();
  float* normed = normed_.floats(backend_, rows_ * width);
  norm(rows_, width, x, own.input_norm, normed, state.input_inverse.floats(backend_, rows_));
  keep_input(layer, InputSite::kAttention, normed);
  for (const Module module : {Module::kQ, Module::kK, Module::kV}) run_module(layer, module);
  const int64_t heads = config_.num_attention_heads;
  const int64_t kv_heads = config_.num_key_value_heads;
  place_heads(state.modules[0].output.data(), own.q_norm, heads,
              state.q_inverse.floats(backend_, rows_ * heads),
              state.q.floats(backend_, rows_ * config_.q_size()));
  place_heads(state.modules[1].output.data(), own.k_norm, kv_heads,
              state.k_inverse.floats(backend_, rows_ * kv_heads),
              state.k.floats(backend_, rows_ * config_.kv_size()));
  const DenseAttentionArgs attention = attention_args(layer);
  backend_.dense_attention(attention);
  keep_input(layer, InputSite::kOutput, attention.y);
  run_module(layer, Module::kO);
  float* middle = state.middle.floats(backend_, rows_ * width);
  backend_.copy(x, middle, rows_ * width);
  backend_.add(rows_ * width, state.modules[static_cast<size_t>(Module::kO)].output.data(), middle);

  norm(rows_, width, middle, own.post_attention_norm, normed,
       state.middle_inverse.floats(backend_, rows_));
  keep_input(layer, InputSite::kMlp, normed);
  run_module(layer, Module::kGate);
  run_module(layer, Module::kUp);
  const int64_t inner = rows_ * config_.intermediate_size;
  float* activation = activation_.floats(backend_, inner);
  backend_.silu_mul({inner, state.modules[static_cast<size_t>(Module::kGate)].output.data(),
                     state.modules[static_cast<size_t>(Module::kUp)].output.data(), activation});
  keep_input(layer, InputSite::kDown, activation);
  run_module(layer, Module::kDown);
  float* out = inputs_[layer + 1].floats(backend_, rows_ * width);
  backend_.copy(middle, out, rows_ * width);
  backend_.add(rows_ * width, state.modules[static_cast<size_t>(Module::kDown)].output.data(), out);
}

void DeviceReversePass::final_hidden() {
  const int64_t width = config_.hidden_size;
  float* x = unrotated_.floats(backend_, rows_ * width);
  backend_.copy(inputs_.back().data(), x, rows_ * width);
  if (student_.base->rotation) backend_.rotate({rows_, rotation_, true, x});
  norm(rows_, width, x, student_.final_norm, final_hidden_.floats(backend_, rows_ * width),
       final_inverse_.floats(backend_, rows_));
}

// Mean KL over all positions; with dx, also the gradient of the last residual state, scaled by
// `weight`.
double DeviceReversePass::finish(const StudentBatch& batch, double weight, float* dx) {
  const int64_t width = config_.hidden_size;
  const int64_t vocab = config_.vocab_size;
  expects(static_cast<int64_t>(batch.teacher.size()) == rows_ * width);
  final_hidden();
  uint16_t* student = hidden_half_.halves(backend_, rows_ * width);
  ops_.round_to_bf16(rows_ * width, final_hidden_.data(), student);
  uint16_t* teacher = teacher_half_.halves(backend_, rows_ * width);
  backend_.upload(teacher, batch.teacher.data(), batch.teacher.size() * sizeof(uint16_t));
  float* kl = kl_.floats(backend_, rows_);
  float* dhidden = dx == nullptr ? nullptr : dfinal_.floats(backend_, rows_ * width);
  const int64_t chunk = std::clamp<int64_t>(kLogitFloats / vocab, 1, rows_);
  for (int64_t first = 0; first < rows_; first += chunk) {
    const int64_t rows = std::min(chunk, rows_ - first);
    float* teacher_logits = teacher_logits_.floats(backend_, chunk * vocab);
    float* student_logits = student_logits_.floats(backend_, chunk * vocab);
    product(rows, vocab, width, teacher + first * width, false, teacher_head_.as<uint16_t>(), true,
            DType::kBF16, teacher_logits, 0);
    product(rows, vocab, width, student + first * width, false, student_head_.as<uint16_t>(), true,
            DType::kBF16, student_logits, 0);
    backend_.kl_divergence(
        {.m = rows,
         .vocab = vocab,
         .teacher = teacher_logits,
         .student = student_logits,
         .temperature = batch.temperature,
         .gradient_scale =
             dx == nullptr ? 0.0f : static_cast<float>(weight / static_cast<double>(rows_)),
         .kl = kl + first});
    if (dx == nullptr) continue;
    uint16_t* dlogits = logit_half_.halves(backend_, chunk * vocab);
    ops_.round_to_bf16(rows * vocab, student_logits, dlogits);
    product(rows, width, vocab, dlogits, false, student_head_.as<uint16_t>(), false, DType::kBF16,
            dhidden + first * width, 0);
  }
  if (dx != nullptr) {
    ops_.fill(rows_ * width, 0.0f, dx);
    reverse_norm(rows_, width, unrotated_.data(), student_.final_norm, final_inverse_.data(),
                 dhidden, dx);
    if (student_.base->rotation) backend_.rotate({rows_, rotation_, false, dx});
  }
  std::vector<float> host(static_cast<size_t>(rows_));
  backend_.download(host.data(), kl, host.size() * sizeof(float));
  return std::accumulate(host.begin(), host.end(), 0.0) / static_cast<double>(rows_);
}

std::unique_ptr<ReversePass> make_device_reverse_pass(const StudentModel& student,
                                                      TensorView reference_head, Backend& backend,
                                                      const ReversePassOptions& options) {
  expects(backend.training_ops() != nullptr);
  if (options.compute == Compute::kF32)
    throw Failure(ErrorCode::kUnsupported,
                  "training in F32 runs on the cpu backend alone: choose --device cpu");
  return std::make_unique<DeviceReversePass>(student, reference_head, backend);
}

}  // namespace spear
