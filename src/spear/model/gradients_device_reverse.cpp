// From the last residual state back to the gradients of every trainable, layer by layer.
#include <algorithm>

#include "spear/base/check.h"
#include "spear/model/gradients_device_pass.h"

namespace spear {

void DeviceReversePass::reverse_norm(int64_t m, int64_t n, const float* x, int64_t slot,
                                     const float* inverse, const float* dy, float* dx) {
  backend_.rms_norm_backward({.m = m,
                              .n = n,
                              .x = x,
                              .weight = value(slot),
                              .inverse_rms = inverse,
                              .dy = dy,
                              .dx = dx,
                              .dweight = gradient(slot, ParameterKind::kNorm)});
}

// Gradients of the factors and the gate; adds A's share to dx. Leaves dB of this batch in db_.
void DeviceReversePass::reverse_compensator(size_t layer, Module module, const float* dy,
                                            float* dx) {
  const StudentLinear& linear = student_.layers[layer].linear(module);
  LayerState& state = states_[layer];
  ModuleState& own = state.modules[static_cast<size_t>(module)];
  const LinearSlots& slots = linear.slots;
  const int64_t rank = linear.rank;
  const int64_t hidden = linear.gate_hidden;
  const uint16_t* x = state.input[static_cast<size_t>(input_site(module))].half_data();
  float* db = db_.floats(backend_, rank * linear.n);
  product(rank, linear.n, rows_, own.gated.data(), true, dy, false, DType::kF32, db, 0);
  if (float* to = gradient(slots.b, ParameterKind::kFactorB)) backend_.add(rank * linear.n, db, to);
  float* du = du_.floats(backend_, rows_ * rank);
  product(rows_, rank, linear.n, dy, false, value(slots.b), true, DType::kF32, du, 0);
  GateBackwardArgs gate;
  gate.forward = gate_args(linear, own.latent.data(), nullptr);
  gate.du = du;
  gate.dz = dz_.floats(backend_, rows_ * rank);
  if (hidden > 0) {
    gate.h = h_.floats(backend_, rows_ * hidden);
    gate.dh = dh_.floats(backend_, rows_ * hidden);
    gate.ds = ds_.floats(backend_, rows_ * rank);
  }
  ops_.gate_backward(gate);
  if (hidden > 0 && (wanted_ & kGateKinds) != 0) {
    const auto column_sum = [&](const float* a, int64_t n, float* to) {
      ColumnSumsArgs sums;
      sums.m = rows_;
      sums.n = n;
      sums.stride = n;
      sums.a = a;
      sums.plain = plain_.floats(backend_, n);
      ops_.column_sums(sums);
      backend_.add(n, sums.plain, to);
    };
    product(hidden, rank, rows_, gate.dh, true, own.latent.data(), false, DType::kF32,
            gradients_.data() + slots.w1, 1);
    product(rank, hidden, rows_, gate.ds, true, gate.h, false, DType::kF32,
            gradients_.data() + slots.w2, 1);
    column_sum(gate.dh, hidden, gradients_.data() + slots.b1);
    column_sum(gate.ds, rank, gradients_.data() + slots.b2);
  }
  uint16_t* dz = dz_half_.halves(backend_, rows_ * rank);
  ops_.round_to_bf16(rows_ * rank, gate.dz, dz);
  if (float* to = gradient(slots.a, ParameterKind::kFactorA))
    product(rank, linear.k, rows_, dz, true, x, false, DType::kBF16, to, 1);
  if (dx == nullptr) return;
  uint16_t* a = a_half_.halves(backend_, rank * linear.k);
  ops_.round_to_bf16(rank * linear.k, value(slots.a), a);
  product(rows_, linear.k, rank, dz, false, a, false, DType::kBF16, dx, 1);
}

// dy [m, n] → dx [m, k], overwritten by the first module of a site, added to by the others.
void DeviceReversePass::reverse_module(size_t layer, Module module, const float* dy, float* dx,
                                       bool first) {
  const StudentLinear& linear = student_.layers[layer].linear(module);
  const FrozenLinear& frozen = frozen_[layer * kModulesPerLayer + static_cast<size_t>(module)];
  LayerState& state = states_[layer];
  const LinearSlots& slots = linear.slots;
  const auto site = static_cast<size_t>(input_site(module));
  const int64_t n = linear.n;
  const bool compensated = linear.rank > 0 && linear.compensate;
  uint16_t* dy_half = dy_half_.halves(backend_, rows_ * n);
  ops_.round_to_bf16(rows_ * n, dy, dy_half);
  product(rows_, linear.k, n, dy_half, false, widen(layer, module), false, DType::kBF16, dx,
          first ? 0 : 1);
  if (compensated) reverse_compensator(layer, module, dy, dx);

  float* dscale = gradient(slots.scale, ParameterKind::kScale);
  float* dzero = gradient(slots.zero, ParameterKind::kZero);
  float* dbias = gradient(slots.bias, ParameterKind::kBias);
  const bool grouped = linear.groups() > 1;
  if (grouped && (dscale != nullptr || dzero != nullptr)) {
    float* g = weight_gradient_.floats(backend_, n * linear.k);
    product(n, linear.k, rows_, dy_half, true, state.input[site].half_data(), false, DType::kBF16,
            g, 0);
    ops_.group_gradients({n, linear.k, linear.group, frozen.codes.as<uint8_t>(),
                          frozen.scales.as<float>(), value(slots.scale), value(slots.zero),
                          static_cast<float>(1 << (linear.bits - 1)), g, dscale, dzero});
  }
  if (grouped && dbias == nullptr) return;
  if (!grouped && dscale == nullptr && dzero == nullptr && dbias == nullptr) return;
  ColumnSumsArgs sums;
  sums.m = rows_;
  sums.n = n;
  sums.stride = n;
  sums.a = dy;
  sums.b = state.modules[static_cast<size_t>(module)].output.data();
  sums.weight = state.sums[site].data();
  sums.products = grouped ? nullptr : products_.floats(backend_, n);
  sums.weighted = grouped ? nullptr : weighted_.floats(backend_, n);
  sums.plain = plain_.floats(backend_, n);
  ops_.column_sums(sums);
  ChannelGradientsArgs channel;
  channel.n = n;
  channel.rank = compensated ? linear.rank : 0;
  channel.scales = frozen.scales.as<float>();
  channel.multipliers = value(slots.scale);
  channel.bias = value(slots.bias);
  channel.b = compensated ? value(slots.b) : nullptr;
  channel.db = compensated ? db_.data() : nullptr;
  channel.products = sums.products;
  channel.weighted = sums.weighted;
  channel.plain = sums.plain;
  channel.dmultipliers = grouped ? nullptr : dscale;
  channel.dzeros = grouped ? nullptr : dzero;
  channel.dbias = dbias;
  ops_.channel_gradients(channel);
}

const float* DeviceReversePass::reverse_heads(float* d, const float* projected, int64_t slot,
                                              const float* inverse, int64_t heads,
                                              Memory& scratch) {
  backend_.rope(rope_args(heads, d, true));
  if (slot < 0) return d;
  const int64_t count = rows_ * heads * config_.head_dim;
  float* raw = scratch.floats(backend_, count);
  ops_.fill(count, 0.0f, raw);
  reverse_norm(rows_ * heads, config_.head_dim, projected, slot, inverse, d, raw);
  return raw;
}

void DeviceReversePass::reverse_attention(size_t layer, float* dx) {
  const StudentLayer& own = student_.layers[layer];
  LayerState& state = states_[layer];
  const int64_t width = config_.hidden_size;
  float* dattention = dattention_.floats(backend_, rows_ * config_.q_size());
  reverse_module(layer, Module::kO, dx, dattention, true);
  DenseAttentionBackwardArgs args;
  args.forward = attention_args(layer);
  args.dy = dattention;
  args.dq = dq_.floats(backend_, rows_ * config_.q_size());
  args.dk = dk_.floats(backend_, rows_ * config_.kv_size());
  args.dv = dv_.floats(backend_, rows_ * config_.kv_size());
  backend_.dense_attention_backward(args);
  const float* dq = reverse_heads(args.dq, state.modules[0].output.data(), own.q_norm,
                                  state.q_inverse.data(), config_.num_attention_heads, dq_raw_);
  const float* dk = reverse_heads(args.dk, state.modules[1].output.data(), own.k_norm,
                                  state.k_inverse.data(), config_.num_key_value_heads, dk_raw_);
  float* branch = branch_.floats(backend_, rows_ * std::max(width, config_.intermediate_size));
  reverse_module(layer, Module::kQ, dq, branch, true);
  reverse_module(layer, Module::kK, dk, branch, false);
  reverse_module(layer, Module::kV, args.dv, branch, false);
  reverse_norm(rows_, width, inputs_[layer].data(), own.input_norm, state.input_inverse.data(),
               branch, dx);
}

// dx: the gradient of the layer's output, then of its input.
void DeviceReversePass::reverse_layer(size_t layer, float* dx) {
  const StudentLayer& own = student_.layers[layer];
  LayerState& state = states_[layer];
  const int64_t width = config_.hidden_size;
  const int64_t inner = rows_ * config_.intermediate_size;
  float* branch = branch_.floats(backend_, rows_ * std::max(width, config_.intermediate_size));
  reverse_module(layer, Module::kDown, dx, branch, true);
  SiluMulBackwardArgs silu;
  silu.count = inner;
  silu.gate = state.modules[static_cast<size_t>(Module::kGate)].output.data();
  silu.up = state.modules[static_cast<size_t>(Module::kUp)].output.data();
  silu.dy = branch;
  silu.dgate = dgate_.floats(backend_, inner);
  silu.dup = dup_.floats(backend_, inner);
  backend_.silu_mul_backward(silu);
  reverse_module(layer, Module::kGate, silu.dgate, branch, true);
  reverse_module(layer, Module::kUp, silu.dup, branch, false);
  reverse_norm(rows_, width, state.middle.data(), own.post_attention_norm,
               state.middle_inverse.data(), branch, dx);
  reverse_attention(layer, dx);
}

}  // namespace spear
