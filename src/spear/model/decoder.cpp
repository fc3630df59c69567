#include "spear/model/decoder.h"

#include <cmath>
#include <utility>

#include "spear/base/check.h"

namespace spear {
namespace {

// Slots of scratch memory; each grows to the largest batch seen.
enum Slot : int {
  kResidual,
  kNormed,
  kQuery,
  kKey,
  kValue,
  kAttended,
  kGate,
  kUp,
  kDelta,
  kPositions,
  kTokens,
  kSlots
};

DeviceBuffer upload_floats(Backend& backend, std::span<const float> values) {
  DeviceBuffer buffer = backend.allocate(values.size() * sizeof(float));
  if (!values.empty())
    backend.upload(buffer.as<float>(), values.data(), values.size() * sizeof(float));
  return buffer;
}

std::vector<float> to_floats(const HostTensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.empty() ? 0 : tensor.count()));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = tensor.dtype() == DType::kF16 ? float_from_f16(tensor.as<uint16_t>()[i])
                                           : tensor.as<float>()[i];
  return out;
}

}  // namespace

Decoder::Decoder(Backend& backend, const DenseModel& model, Compute compute)
    : backend_(&backend), config_(model.config), compute_(compute) {
  embedding_ = backend.prepare_dense(model.embedding.view(), nullptr, compute);
  head_ = model.head.empty()
              ? embedding_
              : LinearPointer(backend.prepare_dense(model.head.view(), nullptr, compute));
  for (const DenseLayer& from : model.layers) {
    DecoderLayer& layer = layers_.emplace_back();
    layer.input_norm = upload_floats(backend, to_floats(from.input_norm));
    layer.post_attention_norm = upload_floats(backend, to_floats(from.post_attention_norm));
    layer.q_norm = upload_floats(backend, to_floats(from.q_norm));
    layer.k_norm = upload_floats(backend, to_floats(from.k_norm));
    for (const Module module : kModules) {
      const DenseLinear& linear = from.linear(module);
      const float* bias = linear.bias.empty() ? nullptr : linear.bias.as<float>().data();
      biases_.push_back(bias);
      layer.linears[static_cast<size_t>(module)] =
          backend.prepare_dense(linear.weight.view(), bias, compute);
    }
  }
  prepare_common(to_floats(model.final_norm));
}

Decoder::Decoder(Backend& backend, const QuantizedModel& model, Compute compute, DecoderPath path)
    : backend_(&backend), config_(model.config), compute_(compute) {
  embedding_ = backend.prepare_quantized(model.embedding.view(), {}, nullptr, compute);
  head_ = model.head.empty()
              ? embedding_
              : LinearPointer(backend.prepare_quantized(model.head.view(), {}, nullptr, compute));
  for (const QuantizedLayer& from : model.layers) {
    DecoderLayer& layer = layers_.emplace_back();
    layer.input_norm = upload_floats(backend, to_floats(from.input_norm));
    layer.post_attention_norm = upload_floats(backend, to_floats(from.post_attention_norm));
    layer.q_norm = upload_floats(backend, to_floats(from.q_norm));
    layer.k_norm = upload_floats(backend, to_floats(from.k_norm));
    for (const Module module : kModules) {
      const QuantizedLinear& linear = from.linear(module);
      const float* bias = nullptr;
      if (!linear.bias.empty()) bias = host_biases_.emplace_back(to_floats(linear.bias)).data();
      biases_.push_back(bias);
      layer.linears[static_cast<size_t>(module)] = backend.prepare_quantized(
          linear.weight.view(), linear.compensator ? linear.compensator->view() : CompensatorView{},
          bias, compute);
    }
  }
  if (model.rotation) {
    rotation_ = std::make_unique<DeviceRotation>();
    rotation_->signs_in = upload_floats(backend, model.rotation->signs_in);
    rotation_->factor = upload_floats(backend, model.rotation->factor);
    rotation_->signs_out = upload_floats(backend, model.rotation->signs_out);
    rotation_->view = model.rotation->view();
    rotation_->view.signs_in = rotation_->signs_in.as<float>();
    rotation_->view.factor = rotation_->factor.as<float>();
    rotation_->view.signs_out = rotation_->signs_out.as<float>();
  }
  prepare_common(to_floats(model.final_norm));
  if (path != DecoderPath::kPlain) compile(model, path);
}

void Decoder::compile(const QuantizedModel& model, DecoderPath path) {
  const auto floats = [&](std::vector<float> values) -> const float* {
    return values.empty() ? nullptr : host_floats_.emplace_back(std::move(values)).data();
  };
  const auto linear = [&](size_t layer, Module module) {
    const QuantizedLinear& from = model.layers[layer].linear(module);
    return ProgramLinear{from.weight.view(),
                         from.compensator ? from.compensator->view() : CompensatorView{},
                         bias_of({static_cast<int32_t>(layer), module})};
  };
  DecoderSpec spec{.hidden = config_.hidden_size,
                   .intermediate = config_.intermediate_size,
                   .vocab = config_.vocab_size,
                   .heads = config_.num_attention_heads,
                   .kv_heads = config_.num_key_value_heads,
                   .head_dim = config_.head_dim,
                   .norm_eps = static_cast<float>(config_.rms_norm_eps),
                   .layers = {},
                   .embedding = model.embedding.view(),
                   .head = model.head_matrix().view(),
                   .final_norm = floats(to_floats(model.final_norm)),
                   .inverse_frequencies = floats(rope_inverse_frequencies(config_)),
                   .rotation = model.rotation ? model.rotation->view() : RotationView{}};
  if (!model.rotation) spec.rotation.n = 0;
  for (size_t l = 0; l < model.layers.size(); ++l) {
    const QuantizedLayer& from = model.layers[l];
    spec.layers.push_back({.input_norm = floats(to_floats(from.input_norm)),
                           .post_attention_norm = floats(to_floats(from.post_attention_norm)),
                           .q_norm = floats(to_floats(from.q_norm)),
                           .k_norm = floats(to_floats(from.k_norm)),
                           .q = linear(l, Module::kQ),
                           .k = linear(l, Module::kK),
                           .v = linear(l, Module::kV),
                           .o = linear(l, Module::kO),
                           .gate = linear(l, Module::kGate),
                           .up = linear(l, Module::kUp),
                           .down = linear(l, Module::kDown)});
  }
  program_ = backend_->compile(
      spec, path == DecoderPath::kFused ? Activations::kInt8 : Activations::kExact,
      &why_not_fused_);
}

std::string Decoder::describe() const {
  if (program_ != nullptr) return program_->describe();
  if (why_not_fused_.empty()) return "one operation after the other";
  return "one operation after the other: " + why_not_fused_;
}

void Decoder::prepare_common(const std::vector<float>& final_norm) {
  final_norm_ = upload_floats(*backend_, final_norm);
  inverse_frequencies_ = upload_floats(*backend_, rope_inverse_frequencies(config_));
  scratch_.resize(kSlots);
  for (const DecoderLayer& layer : layers_)
    for (const LinearPointer& linear : layer.linears) originals_.push_back(linear.get());
}

float* Decoder::scratch(int slot, int64_t floats) {
  DeviceBuffer& buffer = scratch_[static_cast<size_t>(slot)];
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  if (buffer.bytes() < bytes) buffer = backend_->allocate(bytes);
  return buffer.as<float>();
}

const int32_t* Decoder::positions_of(const Batch& batch) {
  std::vector<int32_t> positions(batch.tokens.size());
  for (const AttentionSequence& s : batch.sequences)
    for (int64_t i = 0; i < s.rows; ++i)
      positions[static_cast<size_t>(s.first_row + i)] = static_cast<int32_t>(s.context + i);
  auto* device =
      reinterpret_cast<int32_t*>(scratch(kPositions, static_cast<int64_t>(positions.size())));
  // Every layer of a batch asks for the same ones: they are uploaded once.
  if (positions != uploaded_positions_) {
    backend_->upload(device, positions.data(), positions.size() * sizeof(int32_t));
    uploaded_positions_ = std::move(positions);
  }
  return device;
}

void Decoder::embed(std::span<const int32_t> tokens, float* x) {
  const auto m = static_cast<int64_t>(tokens.size());
  for (const int32_t token : tokens) expects(token >= 0 && token < config_.vocab_size);
  auto* device = reinterpret_cast<int32_t*>(scratch(kTokens, m));
  backend_->upload(device, tokens.data(), tokens.size() * sizeof(int32_t));
  backend_->embed(*embedding_, m, device, x);
  if (rotation_) backend_->rotate({m, rotation_->view, false, x});
}

void Decoder::run_layer(int32_t index, const Batch& batch, KvCache& cache, float* x) {
  const DecoderLayer& layer = layers_[static_cast<size_t>(index)];
  const ModelConfig& c = config_;
  Backend& device = *backend_;
  const auto m = static_cast<int64_t>(batch.tokens.size());
  const auto eps = static_cast<float>(c.rms_norm_eps);
  const int64_t hidden = c.hidden_size;
  const auto linear = [&](Module module, const float* in, float* out) {
    device.linear(*layer.linears[static_cast<size_t>(module)], m, in, out);
  };
  const auto norm = [&](int64_t rows, int64_t width, const float* in, const DeviceBuffer& weight,
                        float* out) {
    device.rms_norm(
        {.m = rows, .n = width, .x = in, .weight = weight.as<float>(), .eps = eps, .y = out});
  };
  const auto tap = [&](InputSite site, const float* in) {
    if (tap_) tap_(index, site, in, m, site_width(c, site));
  };

  float* normed = scratch(kNormed, m * hidden);
  float* q = scratch(kQuery, m * c.q_size());
  float* k = scratch(kKey, m * c.kv_size());
  float* v = scratch(kValue, m * c.kv_size());
  norm(m, hidden, x, layer.input_norm, normed);
  tap(InputSite::kAttention, normed);
  linear(Module::kQ, normed, q);
  linear(Module::kK, normed, k);
  linear(Module::kV, normed, v);
  if (c.qk_norm) {
    norm(m * c.num_attention_heads, c.head_dim, q, layer.q_norm, q);
    norm(m * c.num_key_value_heads, c.head_dim, k, layer.k_norm, k);
  }
  const int32_t* positions = positions_of(batch);
  const auto* frequencies = inverse_frequencies_.as<float>();
  device.rope({.m = m,
               .heads = c.num_attention_heads,
               .head_dim = c.head_dim,
               .x = q,
               .row_stride = c.q_size(),
               .positions = positions,
               .inverse_frequencies = frequencies});
  device.rope({.m = m,
               .heads = c.num_key_value_heads,
               .head_dim = c.head_dim,
               .x = k,
               .row_stride = c.kv_size(),
               .positions = positions,
               .inverse_frequencies = frequencies});
  const auto sequences = static_cast<int64_t>(batch.sequences.size());
  device.kv_append({c.num_key_value_heads, c.head_dim, k, v, cache.layer(index),
                    batch.sequences.data(), sequences});
  float* attended = scratch(kAttended, m * c.q_size());
  device.attention({.heads = c.num_attention_heads,
                    .kv_heads = c.num_key_value_heads,
                    .head_dim = c.head_dim,
                    .q = q,
                    .cache = cache.layer(index),
                    .sequences = batch.sequences.data(),
                    .sequence_count = sequences,
                    .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                    .y = attended});
  tap(InputSite::kOutput, attended);
  float* delta = scratch(kDelta, m * hidden);
  linear(Module::kO, attended, delta);
  device.add(m * hidden, delta, x);

  float* gate = scratch(kGate, m * c.intermediate_size);
  float* up = scratch(kUp, m * c.intermediate_size);
  norm(m, hidden, x, layer.post_attention_norm, normed);
  tap(InputSite::kMlp, normed);
  linear(Module::kGate, normed, gate);
  linear(Module::kUp, normed, up);
  device.silu_mul({m * c.intermediate_size, gate, up, gate});
  tap(InputSite::kDown, gate);
  linear(Module::kDown, gate, delta);
  device.add(m * hidden, delta, x);
}

void Decoder::finish(const float* x, int64_t m, float* hidden) {
  // The rotation keeps every row's length, so the norm of the un-rotated stream is the un-rotated
  // norm: un-rotate first, then one norm applies the stored weight.
  if (rotation_) {
    backend_->copy(x, hidden, m * config_.hidden_size);
    backend_->rotate({m, rotation_->view, true, hidden});
    x = hidden;
  }
  backend_->rms_norm({.m = m,
                      .n = config_.hidden_size,
                      .x = x,
                      .weight = final_norm_.as<float>(),
                      .eps = static_cast<float>(config_.rms_norm_eps),
                      .y = hidden});
}

void Decoder::forward(const Batch& batch, KvCache& cache, float* hidden) {
  const auto m = static_cast<int64_t>(batch.tokens.size());
  expects(batch.bare.empty() || runs_bare_rows());
  if (DecoderProgram* fused = program()) {
    fused->step({.tokens = batch.tokens,
                 .sequences = batch.sequences,
                 .cache = cache.layers(),
                 .logit_rows = {},
                 .bare = batch.bare,
                 .hidden = hidden});
    return;
  }
  float* x = scratch(kResidual, m * config_.hidden_size);
  embed(batch.tokens, x);
  for (int32_t l = 0; l < static_cast<int32_t>(layers_.size()); ++l) run_layer(l, batch, cache, x);
  finish(x, m, hidden);
}

void Decoder::logits(const float* hidden, int64_t rows, float* logits) {
  if (DecoderProgram* fused = program()) return fused->logits(hidden, rows, logits);
  backend_->linear(*head_, rows, hidden, logits);
}

LinearPointer Decoder::exchange(const ModuleId& id, LinearPointer linear) {
  LinearPointer& place =
      layers_[static_cast<size_t>(id.layer)].linears[static_cast<size_t>(id.module)];
  const PreparedLinear* original = originals_[static_cast<size_t>(id.index())];
  replaced_ += (linear.get() != original ? 1 : 0) - (place.get() != original ? 1 : 0);
  return std::exchange(place, std::move(linear));
}

}  // namespace spear
