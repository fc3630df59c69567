// The student's forward pass, its loss and its reverse pass, written once for any scalar type:
// training runs it in F32 with BF16 products on a backend, tests run it in FP64 against finite
// differences.
//
// Ops provides  Real, Factor (what products read), to_factor, from_factor, parallel(count, grain,
// body) and the operations gemm, rms_norm, rms_norm_backward, rope, silu_mul, silu_mul_backward,
// attention, attention_backward, rotate and kl. Activations are kept by layer: inputs of layers
// always; the inside of a layer when `keep`, else recomputed. The way back through the layers
// stands in gradients_graph_reverse.h, which whoever runs a graph includes. One thread at a time.
#pragma once

#include <cmath>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "spear/base/check.h"
#include "spear/kernels/w4_linear.h"
#include "spear/model/gradients_site.h"

namespace spear::gradients {

template <class Real, class Factor>
struct Product {
  int64_t m, n, k;
  const Factor* a;
  int64_t lda;
  bool transpose_a;
  const Factor* b;
  int64_t ldb;
  bool transpose_b;
  Real* c;  // overwritten
  int64_t ldc;
};

template <class Factor>
struct GraphBatch {
  std::span<const int32_t> tokens;  // [sequences · length]
  int64_t sequences = 0, length = 0;
  const Factor* teacher = nullptr;  // [sequences · length, hidden] after the final norm
  double temperature = 1.0;
};

template <class Ops>
struct GraphEnds {
  const typename Ops::Factor* student_head = nullptr;  // [vocab, hidden]
  const typename Ops::Factor* teacher_head = nullptr;  // [vocab, hidden]
};

template <class Ops>
class Graph {
 public:
  using Real = typename Ops::Real;
  using Factor = typename Ops::Factor;
  using Batch = GraphBatch<Factor>;

  Graph(const StudentModel& student, GraphEnds<Ops> ends, Ops& ops, bool keep, bool keep_matrices)
      : student_(student),
        config_(student.base->config),
        ends_(ends),
        ops_(ops),
        keep_(keep),
        keep_matrices_(keep_matrices) {
    for (const StudentLayer& layer : student.layers) {
      Layer own;
      for (int s = 0; s < kSitesPerLayer; ++s)
        own.sites.push_back(
            std::make_unique<Site<Ops>>(layer, static_cast<InputSite>(s), site_scratch_));
      layers_.push_back(std::move(own));
    }
    states_.resize(keep ? layers_.size() : 1);
    inputs_.resize(layers_.size() + 1);
    matrices_.resize(keep_matrices ? layers_.size() : 1);
    matrices_stand_.resize(matrices_.size(), false);
  }

  // Mean KL to the teacher over all positions.
  double loss(const Real* values, const Batch& batch) {
    forward(values, batch.tokens, batch.sequences, batch.length, false);
    return finish(values, batch, 0.0, 0, nullptr, nullptr);
  }

  // Adds weight · ∂(T²·mean KL)/∂values of the wanted kinds to `gradients`; returns the mean KL.
  double loss_and_gradient(const Real* values, const Batch& batch, KindSet wanted, double weight,
                           Real* gradients) {
    forward(values, batch.tokens, batch.sequences, batch.length, keep_);
    Real* dx = gradient_.get(rows_ * config_.hidden_size);
    const double kl = finish(values, batch, weight, wanted, gradients, dx);
    for (size_t l = layers_.size(); l-- > 0;) {
      State& state = states_[keep_ ? l : 0];
      if (!keep_)
        run_layer(l, values, state, nullptr);
      else if (!keep_matrices_)
        load_matrices(l, values);
      reverse_layer(l, values, state, wanted, gradients, dx);
    }
    return kl;
  }

  // The loss again on the batch of the last call, when nothing below `first` changed since: only
  // the layers from there on are run. Overwrites what stands above `first`, so calls go from high
  // layers to low ones.
  double loss_from(size_t first, const Real* values, const Batch& batch) {
    expects(rows_ == batch.sequences * batch.length && length_ == batch.length);
    for (size_t l = first; l < layers_.size(); ++l)
      run_layer(l, values, states_[0], inputs_[l + 1].data());
    return finish(values, batch, 0.0, 0, nullptr, nullptr);
  }

  // The final hidden state, after the final norm: [sequences · length, hidden].
  const Real* hidden(const Real* values, std::span<const int32_t> tokens, int64_t sequences,
                     int64_t length) {
    forward(values, tokens, sequences, length, false);
    return final_hidden(values);
  }

 private:
  struct Layer {
    std::vector<std::unique_ptr<Site<Ops>>> sites;  // by InputSite
  };
  struct State {
    std::array<SiteState<Ops>, kSitesPerLayer> sites;
    Scratch<Real> input_inverse, middle, middle_inverse;  // [m], [m, hidden], [m]
    Scratch<Real> q, k, q_inverse, k_inverse;             // after QK norm and RoPE; [m, heads]
    Scratch<Real> attention, log_sum;  // [m, heads, head_dim], [batch, heads, length]
    [[nodiscard]] SiteState<Ops>& site(InputSite s) { return sites[static_cast<size_t>(s)]; }
  };
  struct Matrices {
    std::array<Scratch<Factor>, kSitesPerLayer> sites;
  };

  Site<Ops>& site(size_t layer, InputSite s) {
    return *layers_[layer].sites[static_cast<size_t>(s)];
  }
  static const Real* at(const Real* values, int64_t slot) {
    return slot < 0 ? nullptr : values + slot;
  }
  static Real* gradient_at(Real* gradients, int64_t slot, KindSet wanted) {
    return slot < 0 || (wanted & bit(ParameterKind::kNorm)) == 0 ? nullptr : gradients + slot;
  }

  void forward(const Real* values, std::span<const int32_t> tokens, int64_t sequences,
               int64_t length, bool keep);
  void embed(std::span<const int32_t> tokens, Real* x);
  void load_matrices(size_t layer, const Real* values);
  const Factor* matrix(size_t layer, InputSite s) {
    return matrices_[keep_matrices_ ? layer : 0].sites[static_cast<size_t>(s)].data();
  }
  // From inputs_[layer] to `out` (null: what the reverse needs, no more).
  void run_layer(size_t layer, const Real* values, State& state, Real* out);
  void run_attention(size_t layer, const Real* values, State& state);
  void place_heads(const Real* projected, const Real* norm, int64_t heads, Real* inverse,
                   Real* placed);
  void reverse_layer(size_t layer, const Real* values, State& state, KindSet wanted,
                     Real* gradients, Real* dx);
  void reverse_attention(size_t layer, const Real* values, State& state, KindSet wanted,
                         Real* gradients, Real* dx);
  const Real* reverse_heads(Real* d, const Real* projected, const Real* norm, const Real* inverse,
                            int64_t heads, Real* dnorm, Scratch<Real>& scratch);
  const Real* final_hidden(const Real* values);
  double finish(const Real* values, const Batch& batch, double weight, KindSet wanted,
                Real* gradients, Real* dx);
  void to_factors(const Real* from, Factor* to, int64_t count);
  void add(const Real* x, const Real* y, Real* out, int64_t count);

  const StudentModel& student_;
  const ModelConfig& config_;
  GraphEnds<Ops> ends_;
  Ops& ops_;
  bool keep_, keep_matrices_;
  SiteScratch<Ops> site_scratch_;
  std::vector<Layer> layers_;
  std::vector<State> states_;
  std::vector<Scratch<Real>> inputs_;  // the residual stream before each layer and after the last
  std::vector<Matrices> matrices_;
  std::vector<bool> matrices_stand_;
  std::vector<int32_t> positions_;
  int64_t rows_ = 0, sequences_ = 0, length_ = 0;
  Scratch<Real> normed_, activation_, gradient_, branch_, dgate_, dup_, dattention_, dq_, dk_, dv_,
      dq_raw_, dk_raw_;
  Scratch<Real> unrotated_, final_inverse_, final_hidden_, dfinal_;
  Scratch<Real> student_logits_, teacher_logits_, kl_;
  Scratch<Factor> hidden_factor_, logit_factor_;
};

template <class Ops>
void Graph<Ops>::to_factors(const Real* from, Factor* to, int64_t count) {
  ops_.parallel(count, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = Ops::to_factor(from[i]);
  });
}

template <class Ops>
void Graph<Ops>::add(const Real* x, const Real* y, Real* out, int64_t count) {
  ops_.parallel(count, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = x[i] + y[i];
  });
}

template <class Ops>
void Graph<Ops>::embed(std::span<const int32_t> tokens, Real* x) {
  const QuantizedView table = student_.base->embedding.view();
  const int64_t width = config_.hidden_size;
  ops_.parallel(rows_, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(width));
    for (int64_t t = begin; t < end; ++t) {
      const int32_t token = tokens[static_cast<size_t>(t)];
      expects(token >= 0 && token < config_.vocab_size);
      dequantize_rows(table, token, token + 1, row.data());
      std::copy(row.begin(), row.end(), x + t * width);
    }
  });
  if (student_.base->rotation) ops_.rotate(rows_, student_.base->rotation->view(), false, x);
}

template <class Ops>
void Graph<Ops>::load_matrices(size_t layer, const Real* values) {
  const size_t slot = keep_matrices_ ? layer : 0;
  for (int s = 0; s < kSitesPerLayer; ++s) {
    Site<Ops>& own = site(layer, static_cast<InputSite>(s));
    Factor* rows = matrices_[slot].sites[static_cast<size_t>(s)].get(own.extended() * own.inputs());
    own.write_matrix(ops_, values, keep_matrices_ && matrices_stand_[slot], rows);
  }
  matrices_stand_[slot] = true;
}

template <class Ops>
void Graph<Ops>::forward(const Real* values, std::span<const int32_t> tokens, int64_t sequences,
                         int64_t length, bool keep) {
  expects(static_cast<int64_t>(tokens.size()) == sequences * length && length > 0);
  sequences_ = sequences;
  length_ = length;
  rows_ = sequences * length;
  positions_.resize(static_cast<size_t>(rows_));
  for (int64_t s = 0; s < sequences; ++s)
    std::iota(positions_.begin() + s * length, positions_.begin() + (s + 1) * length, 0);
  for (auto& input : inputs_) input.get(rows_ * config_.hidden_size);
  embed(tokens, inputs_[0].data());
  for (size_t l = 0; l < layers_.size(); ++l) {
    if (keep_matrices_) load_matrices(l, values);
    run_layer(l, values, states_[keep ? l : 0], inputs_[l + 1].data());
  }
}

// One projection of q or k: its own norm over each head, then RoPE.
template <class Ops>
void Graph<Ops>::place_heads(const Real* projected, const Real* norm, int64_t heads, Real* inverse,
                             Real* placed) {
  const int64_t count = rows_ * heads * config_.head_dim;
  if (norm != nullptr)
    ops_.rms_norm(rows_ * heads, config_.head_dim, projected, norm, placed, inverse);
  else
    std::copy(projected, projected + count, placed);
  ops_.rope(rows_, heads, config_.head_dim, placed, positions_.data(), false);
}

template <class Ops>
void Graph<Ops>::run_attention(size_t layer, const Real* values, State& state) {
  const StudentLayer& own = student_.layers[layer];
  SiteState<Ops>& in = state.site(InputSite::kAttention);
  const int64_t heads = config_.num_attention_heads;
  const int64_t kv_heads = config_.num_key_value_heads;
  Real* q = state.q.get(rows_ * config_.q_size());
  Real* k = state.k.get(rows_ * config_.kv_size());
  place_heads(in.output[0].data(), at(values, own.q_norm), heads,
              state.q_inverse.get(rows_ * heads), q);
  place_heads(in.output[1].data(), at(values, own.k_norm), kv_heads,
              state.k_inverse.get(rows_ * kv_heads), k);
  Real* y = state.attention.get(rows_ * config_.q_size());
  ops_.attention(sequences_, length_, q, k, in.output[2].data(), y,
                 state.log_sum.get(rows_ * heads));
  to_factors(y, state.site(InputSite::kOutput).input.get(rows_ * config_.q_size()),
             rows_ * config_.q_size());
}

template <class Ops>
void Graph<Ops>::run_layer(size_t layer, const Real* values, State& state, Real* out) {
  const StudentLayer& own = student_.layers[layer];
  const int64_t width = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  if (!keep_matrices_) load_matrices(layer, values);
  const auto run = [&](InputSite s) {
    site(layer, s).forward(ops_, values, matrix(layer, s), rows_, state.site(s));
  };
  const Real* x = inputs_[layer].data();
  Real* normed = normed_.get(rows_ * width);

  ops_.rms_norm(rows_, width, x, at(values, own.input_norm), normed,
                state.input_inverse.get(rows_));
  to_factors(normed, state.site(InputSite::kAttention).input.get(rows_ * width), rows_ * width);
  run(InputSite::kAttention);
  run_attention(layer, values, state);
  run(InputSite::kOutput);
  Real* middle = state.middle.get(rows_ * width);
  add(x, state.site(InputSite::kOutput).output[0].data(), middle, rows_ * width);

  ops_.rms_norm(rows_, width, middle, at(values, own.post_attention_norm), normed,
                state.middle_inverse.get(rows_));
  to_factors(normed, state.site(InputSite::kMlp).input.get(rows_ * width), rows_ * width);
  run(InputSite::kMlp);
  const SiteState<Ops>& mlp = state.site(InputSite::kMlp);
  Real* activation = activation_.get(rows_ * inner);
  ops_.silu_mul(rows_ * inner, mlp.output[0].data(), mlp.output[1].data(), activation);
  to_factors(activation, state.site(InputSite::kDown).input.get(rows_ * inner), rows_ * inner);
  run(InputSite::kDown);
  if (out != nullptr)
    add(middle, state.site(InputSite::kDown).output[0].data(), out, rows_ * width);
}

template <class Ops>
auto Graph<Ops>::final_hidden(const Real* values) -> const Real* {
  const int64_t count = rows_ * config_.hidden_size;
  const Real* x = inputs_.back().data();
  Real* unrotated = unrotated_.get(count);
  std::copy(x, x + count, unrotated);
  if (student_.base->rotation) ops_.rotate(rows_, student_.base->rotation->view(), true, unrotated);
  Real* hidden = final_hidden_.get(count);
  ops_.rms_norm(rows_, config_.hidden_size, unrotated, at(values, student_.final_norm), hidden,
                final_inverse_.get(rows_));
  return hidden;
}

// Head, loss and, with a weight, the way back to the last layer's output.
template <class Ops>
double Graph<Ops>::finish(const Real* values, const Batch& batch, double weight, KindSet wanted,
                          Real* gradients, Real* dx) {
  const int64_t width = config_.hidden_size;
  const int64_t vocab = config_.vocab_size;
  const int64_t chunk = std::min(rows_, std::max<int64_t>(16, (int64_t{1} << 24) / vocab));
  const Real* hidden = final_hidden(values);
  Factor* hidden_factor = hidden_factor_.get(chunk * width);
  Real* student = student_logits_.get(chunk * vocab);
  Real* teacher = teacher_logits_.get(chunk * vocab);
  Real* kl = kl_.get(rows_);
  Real* dhidden = dx == nullptr ? nullptr : dfinal_.get(rows_ * width);
  const double scale = weight / static_cast<double>(rows_);
  for (int64_t first = 0; first < rows_; first += chunk) {
    const int64_t rows = std::min(chunk, rows_ - first);
    to_factors(hidden + first * width, hidden_factor, rows * width);
    ops_.gemm({rows, vocab, width, hidden_factor, width, false, ends_.student_head, width, true,
               student, vocab});
    ops_.gemm({rows, vocab, width, batch.teacher + first * width, width, false, ends_.teacher_head,
               width, true, teacher, vocab});
    ops_.kl(rows, vocab, teacher, student, batch.temperature, scale, kl + first);
    if (dhidden == nullptr) continue;
    Factor* dlogits = logit_factor_.get(chunk * vocab);
    to_factors(student, dlogits, rows * vocab);
    ops_.gemm({rows, width, vocab, dlogits, vocab, false, ends_.student_head, width, false,
               dhidden + first * width, width});
  }
  if (dhidden != nullptr) {
    std::fill(dx, dx + rows_ * width, Real{0});
    ops_.rms_norm_backward(rows_, width, unrotated_.data(), at(values, student_.final_norm),
                           final_inverse_.data(), dhidden, dx,
                           gradient_at(gradients, student_.final_norm, wanted));
    if (student_.base->rotation) ops_.rotate(rows_, student_.base->rotation->view(), false, dx);
  }
  double sum = 0;
  for (int64_t t = 0; t < rows_; ++t) sum += static_cast<double>(kl[t]);
  return sum / static_cast<double>(rows_);
}

}  // namespace spear::gradients
