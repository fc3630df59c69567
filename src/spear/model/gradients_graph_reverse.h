// The way back through the layers of gradients_graph.h: from the gradient of the last residual
// state to that of every wanted parameter.
#pragma once

#include <algorithm>
#include <array>

#include "spear/model/gradients_graph.h"
#include "spear/model/gradients_site_reverse.h"

namespace spear::gradients {

template <class Ops>
void Graph<Ops>::reverse_layer(size_t layer, const Real* values, State& state, KindSet wanted,
                               Real* gradients, Real* dx) {
  const StudentLayer& own = student_.layers[layer];
  const int64_t width = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  Real* branch = branch_.get(rows_ * std::max(width, inner));
  const auto reverse = [&](InputSite s, std::array<const Real*, 3> dy, Real* out) {
    site(layer, s).reverse(ops_, values, matrix(layer, s), rows_, state.site(s), dy, wanted,
                           gradients, out);
  };
  reverse(InputSite::kDown, {dx, nullptr, nullptr}, branch);
  const SiteState<Ops>& mlp = state.site(InputSite::kMlp);
  Real* dgate = dgate_.get(rows_ * inner);
  Real* dup = dup_.get(rows_ * inner);
  ops_.silu_mul_backward(rows_ * inner, mlp.output[0].data(), mlp.output[1].data(), branch, dgate,
                         dup);
  reverse(InputSite::kMlp, {dgate, dup, nullptr}, branch);
  ops_.rms_norm_backward(rows_, width, state.middle.data(), at(values, own.post_attention_norm),
                         state.middle_inverse.data(), branch, dx,
                         gradient_at(gradients, own.post_attention_norm, wanted));
  reverse_attention(layer, values, state, wanted, gradients, dx);
}

// From the gradient after RoPE to that of the projection.
template <class Ops>
auto Graph<Ops>::reverse_heads(Real* d, const Real* projected, const Real* norm,
                               const Real* inverse, int64_t heads, Real* dnorm,
                               Scratch<Real>& scratch) -> const Real* {
  ops_.rope(rows_, heads, config_.head_dim, d, positions_.data(), true);
  if (norm == nullptr) return d;
  const int64_t count = rows_ * heads * config_.head_dim;
  Real* raw = scratch.get(count);
  std::fill(raw, raw + count, Real{0});
  ops_.rms_norm_backward(rows_ * heads, config_.head_dim, projected, norm, inverse, d, raw, dnorm);
  return raw;
}

template <class Ops>
void Graph<Ops>::reverse_attention(size_t layer, const Real* values, State& state, KindSet wanted,
                                   Real* gradients, Real* dx) {
  const StudentLayer& own = student_.layers[layer];
  const int64_t width = config_.hidden_size;
  Real* dy = dattention_.get(rows_ * config_.q_size());
  site(layer, InputSite::kOutput)
      .reverse(ops_, values, matrix(layer, InputSite::kOutput), rows_,
               state.site(InputSite::kOutput), {dx, nullptr, nullptr}, wanted, gradients, dy);
  SiteState<Ops>& in = state.site(InputSite::kAttention);
  Real* dq = dq_.get(rows_ * config_.q_size());
  Real* dk = dk_.get(rows_ * config_.kv_size());
  Real* dv = dv_.get(rows_ * config_.kv_size());
  ops_.attention_backward(sequences_, length_, state.q.data(), state.k.data(), in.output[2].data(),
                          state.attention.data(), state.log_sum.data(), dy, dq, dk, dv);
  const Real* dq_raw = reverse_heads(dq, in.output[0].data(), at(values, own.q_norm),
                                     state.q_inverse.data(), config_.num_attention_heads,
                                     gradient_at(gradients, own.q_norm, wanted), dq_raw_);
  const Real* dk_raw = reverse_heads(dk, in.output[1].data(), at(values, own.k_norm),
                                     state.k_inverse.data(), config_.num_key_value_heads,
                                     gradient_at(gradients, own.k_norm, wanted), dk_raw_);
  // Below the first layer nothing is trained but its norm.
  const bool needs_input = layer > 0 || gradient_at(gradients, own.input_norm, wanted) != nullptr;
  Real* branch = needs_input ? branch_.get(rows_ * width) : nullptr;
  site(layer, InputSite::kAttention)
      .reverse(ops_, values, matrix(layer, InputSite::kAttention), rows_, in, {dq_raw, dk_raw, dv},
               wanted, gradients, branch);
  if (needs_input)
    ops_.rms_norm_backward(rows_, width, inputs_[layer].data(), at(values, own.input_norm),
                           state.input_inverse.data(), branch, dx,
                           gradient_at(gradients, own.input_norm, wanted));
}

}  // namespace spear::gradients
