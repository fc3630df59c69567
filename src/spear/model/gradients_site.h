// The linears that read one input, as the student runs them: forward and reverse. Their centred
// codes stand as rows of one matrix, followed by the rows of their A factors and two rows of ones,
// so that one product gives Q·x, A·x and Σx, and one product of its transpose gives the whole
// gradient of the input. Scales, zero points, B, gate and bias are applied to the product's rows.
// With groups a row holds the dequantized weight instead, and scales get a weight-shaped gradient.
//
// `Ops` says what the scalar types are and how products run (see gradients_graph.h). One thread at
// a time; loops run on the threads of Ops::parallel, and no result depends on their number.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "spear/base/check.h"
#include "spear/base/host_buffer.h"
#include "spear/model/gradients_student.h"

namespace spear::gradients {

// Memory that grows and keeps no contents.
template <class T>
class Scratch {
 public:
  T* get(int64_t count) {
    buffer_.reserve(static_cast<size_t>(count) * sizeof(T));
    return buffer_.as<T>();
  }
  [[nodiscard]] T* data() { return buffer_.as<T>(); }
  [[nodiscard]] const T* data() const { return buffer_.as<T>(); }

 private:
  HostBuffer buffer_;
};

// Σ a·b with sixteen running sums: vectorizable, and the same on every machine.
template <class Real>
Real dot(const Real* a, const Real* b, int64_t count) {
  constexpr int64_t kLanes = 16;
  Real lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  Real sum = 0;
  for (; i < count; ++i) sum += a[i] * b[i];
  for (const Real lane : lanes) sum += lane;
  return sum;
}

// y += factor · x
template <class Real>
void axpy(Real factor, const Real* x, Real* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

// What the reverse of a site needs of its forward pass.
template <class Ops>
struct SiteState {
  Scratch<typename Ops::Factor> input;                // [m, k]
  std::array<Scratch<typename Ops::Real>, 3> output;  // per module [m, n]
  Scratch<typename Ops::Real> sum;                    // [m] Σx
  Scratch<typename Ops::Real> latent;                 // z = A·x of all modules [m, ranks]
  Scratch<typename Ops::Real> gated;                  // γ(z) ⊙ z [m, ranks]
};

// Shared by all sites of a graph: what lives during one call.
template <class Ops>
struct SiteScratch {
  using Real = typename Ops::Real;
  std::vector<Real> scale, scaled_zero, bias;     // [n]
  Scratch<Real> product;                          // [m, extended]
  Scratch<typename Ops::Factor> reverse_product;  // [m, extended]
  Scratch<Real> dlatent;                          // [m, ranks]
  Scratch<Real> trace;                            // [m, traces]
  Scratch<Real> weight_gradient;                  // [n, k] of a grouped module
};

template <class Ops>
class Site {
 public:
  using Real = typename Ops::Real;
  using Factor = typename Ops::Factor;
  static constexpr int64_t kOnes =
      2;  // rows of ones: the reverse sends a sum's high and low part through them

  Site(const StudentLayer& layer, InputSite site, SiteScratch<Ops>& work) : work_(&work) {
    for (const Module m : kModules) {
      if (input_site(m) != site) continue;
      const StudentLinear& linear = layer.linear(m);
      parts_.push_back({&linear, n_, ranks_, traces_});
      n_ += linear.n;
      ranks_ += linear.rank;
      traces_ += parts_.back().trace();
      widest_gate_ = std::max(widest_gate_, int64_t{linear.gate_hidden});
      k_ = linear.k;
    }
    const int64_t rows = n_ + ranks_ + kOnes;
    extended_ = (rows + 15) / 16 * 16;
  }

  [[nodiscard]] int64_t outputs() const { return n_; }
  [[nodiscard]] int64_t inputs() const { return k_; }
  [[nodiscard]] int64_t ranks() const { return ranks_; }
  [[nodiscard]] int64_t extended() const { return extended_; }
  [[nodiscard]] size_t part_count() const { return parts_.size(); }
  [[nodiscard]] const StudentLinear& linear(size_t part) const { return *parts_[part].linear; }
  [[nodiscard]] bool grouped() const {
    return std::any_of(parts_.begin(), parts_.end(), [](const Part& p) { return p.grouped(); });
  }

  // Fills the extended matrix [extended, k]. Rows that no parameter changes are skipped when
  // `codes_stand`.
  void write_matrix(Ops& ops, const Real* values, bool codes_stand, Factor* matrix) const;

  // state.input [m, k] is filled; writes state's other fields.
  void forward(Ops& ops, const Real* values, const Factor* matrix, int64_t m,
               SiteState<Ops>& state);

  // dy[part] [m, n] → dx [m, k] (overwritten; null: not needed); adds to gradients of the wanted
  // kinds.
  void reverse(Ops& ops, const Real* values, const Factor* matrix, int64_t m,
               const SiteState<Ops>& state, const std::array<const Real*, 3>& dy, KindSet wanted,
               Real* gradients, Real* dx);

 private:
  struct Part {
    const StudentLinear* linear;
    int64_t first;        // column of its first output
    int64_t first_rank;   // column of its first latent, after all outputs
    int64_t first_trace;  // column of what its gate's reverse leaves: h, dh, ds
    [[nodiscard]] int64_t trace() const {
      return linear->gate_hidden == 0 ? 0 : 2 * int64_t{linear->gate_hidden} + linear->rank;
    }
    [[nodiscard]] bool grouped() const { return linear->groups() > 1; }
  };

  void load_columns(const Real* values);
  void row_forward(const Part& part, const Real* values, const Real* product, Real sum,
                   const Real* gated, Real* y) const;
  // h: scratch of the gate's hidden width.
  void gate_forward(const Part& part, const Real* values, const Real* z, Real* h, Real* u) const;
  // du → dz of one token; leaves h, dh and ds for the gate's own gradients in `trace`.
  void gate_reverse(const Part& part, const Real* values, const Real* z, const Real* du, Real* dz,
                    Real* trace) const;
  // The rows of the reverse product: dy·s, dz and the sums' share; also latents' gradients and
  // traces.
  void rows_reverse(Ops& ops, const Real* values, int64_t m, const SiteState<Ops>& state,
                    const std::array<const Real*, 3>& dy);
  void gate_gradients(Ops& ops, const Part& part, int64_t m, const Real* latent,
                      Real* gradients) const;
  // Sums over tokens for each output: scale, zero point, bias, B.
  void column_gradients(Ops& ops, const Part& part, const Real* values, int64_t m,
                        const SiteState<Ops>& state, const Real* y, const Real* dy, KindSet wanted,
                        Real* gradients) const;
  void column_block(const Part& part, const Real* values, int64_t m, const SiteState<Ops>& state,
                    const Real* y, const Real* dy, int64_t begin, int64_t end, KindSet wanted,
                    Real* gradients) const;
  void group_gradients(Ops& ops, const Part& part, const Real* values, int64_t m,
                       const Factor* input, KindSet wanted, Real* gradients);
  void factor_a_gradients(Ops& ops, int64_t m, const Factor* input, Real* gradients) const;

  std::vector<Part> parts_;
  int64_t n_ = 0, k_ = 0, ranks_ = 0, extended_ = 0, traces_ = 0, widest_gate_ = 0;
  SiteScratch<Ops>* work_;
};

template <class Ops>
void Site<Ops>::write_matrix(Ops& ops, const Real* values, bool codes_stand, Factor* matrix) const {
  for (const Part& part : parts_) {
    const StudentLinear& linear = *part.linear;
    Factor* rows = matrix + part.first * k_;
    const Real centre = static_cast<Real>(1 << (linear.bits - 1));
    if (part.grouped()) {
      ops.parallel(linear.n, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          for (int64_t g = 0; g < linear.groups(); ++g) {
            const int64_t at = i * linear.groups() + g;
            const Real s = static_cast<Real>(linear.scales[static_cast<size_t>(at)]) *
                           values[linear.slots.scale + at];
            const Real z = linear.slots.zero < 0 ? centre : values[linear.slots.zero + at];
            const uint8_t* codes = linear.codes.data() + i * k_ + g * linear.group;
            Factor* out = rows + i * k_ + g * linear.group;
            for (int64_t j = 0; j < linear.group; ++j)
              out[j] = Ops::to_factor(s * (static_cast<Real>(codes[j]) - z));
          }
      });
    } else if (!codes_stand) {
      ops.parallel(int64_t{linear.n} * k_, 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          rows[i] =
              Ops::to_factor(static_cast<Real>(linear.codes[static_cast<size_t>(i)]) - centre);
      });
    }
    if (linear.rank == 0) continue;
    const Real* a = values + linear.slots.a;
    Factor* out = matrix + (n_ + part.first_rank) * k_;
    for (int64_t i = 0; i < linear.rank * k_; ++i) out[i] = Ops::to_factor(a[i]);
  }
  if (codes_stand) return;
  Factor* tail = matrix + (n_ + ranks_) * k_;
  std::fill(tail, tail + kOnes * k_, Ops::to_factor(Real{1}));
  std::fill(tail + kOnes * k_, matrix + extended_ * k_, Ops::to_factor(Real{0}));
}

// Spreads scales, zeros and biases over the outputs. Grouped modules carry theirs in the matrix.
template <class Ops>
void Site<Ops>::load_columns(const Real* values) {
  const auto count = static_cast<size_t>(n_);
  work_->scale.assign(count, Real{1});
  work_->scaled_zero.assign(count, Real{0});
  work_->bias.assign(count, Real{0});
  for (const Part& part : parts_) {
    const StudentLinear& linear = *part.linear;
    const Real centre = static_cast<Real>(1 << (linear.bits - 1));
    for (int64_t i = 0; i < linear.n; ++i) {
      const auto at = static_cast<size_t>(part.first + i);
      if (linear.slots.bias >= 0) work_->bias[at] = values[linear.slots.bias + i];
      if (part.grouped()) continue;
      work_->scale[at] =
          static_cast<Real>(linear.scales[static_cast<size_t>(i)]) * values[linear.slots.scale + i];
      if (linear.slots.zero >= 0)
        work_->scaled_zero[at] = work_->scale[at] * (values[linear.slots.zero + i] - centre);
    }
  }
}

template <class Ops>
void Site<Ops>::gate_forward(const Part& part, const Real* values, const Real* z, Real* h,
                             Real* u) const {
  const StudentLinear& linear = *part.linear;
  const int64_t rank = linear.rank;
  const int64_t hidden = linear.gate_hidden;
  if (!linear.compensate) {
    std::fill_n(u, rank, Real{0});
    return;
  }
  std::copy(z, z + rank, u);
  if (hidden == 0) return;
  const LinearSlots& slots = linear.slots;
  for (int64_t i = 0; i < hidden; ++i)
    h[i] = std::max(Real{0}, values[slots.b1 + i] + dot(values + slots.w1 + i * rank, z, rank));
  for (int64_t r = 0; r < rank; ++r)
    u[r] *= 1 + std::tanh(values[slots.b2 + r] + dot(values + slots.w2 + r * hidden, h, hidden));
}

template <class Ops>
void Site<Ops>::row_forward(const Part& part, const Real* values, const Real* product, Real sum,
                            const Real* gated, Real* y) const {
  const StudentLinear& linear = *part.linear;
  const Real* p = product + part.first;
  const Real* scale = work_->scale.data() + part.first;
  const Real* scaled_zero = work_->scaled_zero.data() + part.first;
  const Real* bias = work_->bias.data() + part.first;
  for (int64_t i = 0; i < linear.n; ++i) y[i] = scale[i] * p[i] - scaled_zero[i] * sum + bias[i];
  if (!linear.compensate) return;
  for (int64_t r = 0; r < linear.rank; ++r)
    axpy(gated[r], values + linear.slots.b + r * linear.n, y, linear.n);
}

template <class Ops>
void Site<Ops>::forward(Ops& ops, const Real* values, const Factor* matrix, int64_t m,
                        SiteState<Ops>& state) {
  load_columns(values);
  Real* product = work_->product.get(m * extended_);
  ops.gemm({m, extended_, k_, state.input.data(), k_, false, matrix, k_, true, product, extended_});
  Real* sum = state.sum.get(m);
  Real* latent = state.latent.get(m * ranks_);
  Real* gated = state.gated.get(m * ranks_);
  std::array<Real*, 3> y{};
  for (size_t p = 0; p < parts_.size(); ++p) y[p] = state.output[p].get(m * parts_[p].linear->n);
  ops.parallel(m, 16, [&](int64_t begin, int64_t end) {
    std::vector<Real> hidden(static_cast<size_t>(widest_gate_));
    for (int64_t t = begin; t < end; ++t) {
      const Real* row = product + t * extended_;
      sum[t] = row[n_ + ranks_];
      std::copy(row + n_, row + n_ + ranks_, latent + t * ranks_);
      for (size_t p = 0; p < parts_.size(); ++p) {
        const Part& part = parts_[p];
        Real* u = gated + t * ranks_ + part.first_rank;
        gate_forward(part, values, row + n_ + part.first_rank, hidden.data(), u);
        row_forward(part, values, row, sum[t], u, y[p] + t * part.linear->n);
      }
    }
  });
}

}  // namespace spear::gradients
