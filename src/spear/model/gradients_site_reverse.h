// The reverse of a site (gradients_site.h): gradients of its input and of everything trainable in
// it.
#pragma once

#include "spear/model/gradients_site.h"

namespace spear::gradients {

// With s = W2·h + b2, t = tanh s, u = (1 + t) ⊙ z:  ds = (1 − t²) ⊙ z ⊙ du;  dh = W2ᵀ·ds where h >
// 0; dz = (1 + t) ⊙ du + W1ᵀ·dh.
template <class Ops>
void Site<Ops>::gate_reverse(const Part& part, const Real* values, const Real* z, const Real* du,
                             Real* dz, Real* trace) const {
  const StudentLinear& linear = *part.linear;
  const int64_t rank = linear.rank;
  const int64_t hidden = linear.gate_hidden;
  if (hidden == 0) {
    std::copy(du, du + rank, dz);
    return;
  }
  const LinearSlots& slots = linear.slots;
  Real* h = trace;
  Real* dh = trace + hidden;
  Real* ds = trace + 2 * hidden;
  for (int64_t i = 0; i < hidden; ++i)
    h[i] = std::max(Real{0}, values[slots.b1 + i] + dot(values + slots.w1 + i * rank, z, rank));
  std::fill_n(dh, hidden, Real{0});
  for (int64_t r = 0; r < rank; ++r) {
    const Real* w2 = values + slots.w2 + r * hidden;
    const Real t = std::tanh(values[slots.b2 + r] + dot(w2, h, hidden));
    ds[r] = (1 - t * t) * z[r] * du[r];
    dz[r] = (1 + t) * du[r];
    axpy(ds[r], w2, dh, hidden);
  }
  for (int64_t i = 0; i < hidden; ++i) {
    if (h[i] <= 0) dh[i] = 0;
    if (dh[i] != 0) axpy(dh[i], values + slots.w1 + i * rank, dz, rank);
  }
}

template <class Ops>
void Site<Ops>::rows_reverse(Ops& ops, const Real* values, int64_t m, const SiteState<Ops>& state,
                             const std::array<const Real*, 3>& dy) {
  Factor* factor = work_->reverse_product.get(m * extended_);
  Real* dlatent = work_->dlatent.get(m * ranks_);
  Real* trace = work_->trace.get(m * traces_);
  ops.parallel(m, 16, [&](int64_t begin, int64_t end) {
    std::vector<Real> du(static_cast<size_t>(ranks_));
    for (int64_t t = begin; t < end; ++t) {
      Factor* row = factor + t * extended_;
      Real lean = 0;
      for (size_t p = 0; p < parts_.size(); ++p) {
        const Part& part = parts_[p];
        const StudentLinear& linear = *part.linear;
        const Real* d = dy[p] + t * linear.n;
        const Real* scale = work_->scale.data() + part.first;
        Factor* out = row + part.first;
        for (int64_t i = 0; i < linear.n; ++i) out[i] = Ops::to_factor(d[i] * scale[i]);
        lean -= dot(d, work_->scaled_zero.data() + part.first, linear.n);
        Real* du_part = du.data() + part.first_rank;
        for (int64_t r = 0; r < linear.rank; ++r)
          du_part[r] = linear.compensate ? dot(d, values + linear.slots.b + r * linear.n, linear.n)
                                         : Real{0};
        Real* dz = dlatent + t * ranks_ + part.first_rank;
        gate_reverse(part, values, state.latent.data() + t * ranks_ + part.first_rank, du_part, dz,
                     trace + t * traces_ + part.first_trace);
        for (int64_t r = 0; r < linear.rank; ++r)
          row[n_ + part.first_rank + r] = Ops::to_factor(dz[r]);
      }
      const Factor high = Ops::to_factor(lean);
      row[n_ + ranks_] = high;
      row[n_ + ranks_ + 1] = Ops::to_factor(lean - Ops::from_factor(high));
      std::fill(row + n_ + ranks_ + kOnes, row + extended_, Ops::to_factor(Real{0}));
    }
  });
}

template <class Ops>
void Site<Ops>::reverse(Ops& ops, const Real* values, const Factor* matrix, int64_t m,
                        const SiteState<Ops>& state, const std::array<const Real*, 3>& dy,
                        KindSet wanted, Real* gradients, Real* dx) {
  load_columns(values);
  rows_reverse(ops, values, m, state, dy);
  if (dx != nullptr)
    ops.gemm({m, k_, extended_, work_->reverse_product.data(), extended_, false, matrix, k_, false,
              dx, k_});
  const Factor* input = state.input.data();
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = parts_[p];
    column_gradients(ops, part, values, m, state, state.output[p].data(), dy[p], wanted, gradients);
    if (part.grouped()) group_gradients(ops, part, values, m, input, wanted, gradients);
    if (part.linear->gate_hidden > 0 && (wanted & kGateKinds) != 0)
      gate_gradients(ops, part, m, state.latent.data(), gradients);
  }
  if ((wanted & bit(ParameterKind::kFactorA)) != 0 && ranks_ > 0)
    factor_a_gradients(ops, m, input, gradients);
}

template <class Ops>
void Site<Ops>::gate_gradients(Ops& ops, const Part& part, int64_t m, const Real* latent,
                               Real* gradients) const {
  const StudentLinear& linear = *part.linear;
  const LinearSlots& slots = linear.slots;
  const int64_t rank = linear.rank;
  const int64_t hidden = linear.gate_hidden;
  const Real* trace = work_->trace.data() + part.first_trace;
  ops.parallel(hidden, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t t = 0; t < m; ++t) {
        const Real dh = trace[t * traces_ + hidden + i];
        if (dh == 0) continue;
        axpy(dh, latent + t * ranks_ + part.first_rank, gradients + slots.w1 + i * rank, rank);
        gradients[slots.b1 + i] += dh;
      }
  });
  ops.parallel(rank, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t t = 0; t < m; ++t) {
        const Real* row = trace + t * traces_;
        const Real ds = row[2 * hidden + r];
        axpy(ds, row, gradients + slots.w2 + r * hidden, hidden);
        gradients[slots.b2 + r] += ds;
      }
  });
}

template <class Ops>
void Site<Ops>::column_gradients(Ops& ops, const Part& part, const Real* values, int64_t m,
                                 const SiteState<Ops>& state, const Real* y, const Real* dy,
                                 KindSet wanted, Real* gradients) const {
  constexpr int64_t kBlock = 64;
  const int64_t blocks = (part.linear->n + kBlock - 1) / kBlock;
  ops.parallel(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      column_block(part, values, m, state, y, dy, block * kBlock,
                   std::min<int64_t>(part.linear->n, (block + 1) * kBlock), wanted, gradients);
  });
}

// With base = y − bias − B·u, which is m times what the codes and the first scales give:  dm = Σ
// dy·base / m,
//  dz = −s Σ dy·Σx,  dbias = Σ dy,  dB = Σ dy·u.
template <class Ops>
void Site<Ops>::column_block(const Part& part, const Real* values, int64_t m,
                             const SiteState<Ops>& state, const Real* y, const Real* dy,
                             int64_t begin, int64_t end, KindSet wanted, Real* gradients) const {
  const StudentLinear& linear = *part.linear;
  const LinearSlots& slots = linear.slots;
  const int64_t width = end - begin;
  const int64_t rank = linear.compensate ? linear.rank : 0;
  const bool base =
      !part.grouped() && (wanted & (bit(ParameterKind::kScale) | bit(ParameterKind::kZero))) != 0;
  const bool factor = (wanted & bit(ParameterKind::kFactorB)) != 0;
  const Real* bias = work_->bias.data() + part.first + begin;
  std::vector<Real> sums(static_cast<size_t>((3 + rank) * 64), Real{0});
  Real* by_base = sums.data();
  Real* by_sum = by_base + 64;
  Real* plain = by_sum + 64;
  Real* by_latent = plain + 64;
  std::array<Real, 64> clean;
  for (int64_t t = 0; t < m; ++t) {
    const Real* d = dy + t * linear.n + begin;
    const Real* u = state.gated.data() + t * ranks_ + part.first_rank;
    for (int64_t i = 0; i < width; ++i) plain[i] += d[i];
    if (factor)
      for (int64_t r = 0; r < rank; ++r) axpy(u[r], d, by_latent + r * 64, width);
    if (!base) continue;
    const Real* out = y + t * linear.n + begin;
    for (int64_t i = 0; i < width; ++i) clean[static_cast<size_t>(i)] = out[i] - bias[i];
    for (int64_t r = 0; r < rank; ++r)
      axpy(-u[r], values + slots.b + r * linear.n + begin, clean.data(), width);
    const Real sum = state.sum.data()[t];
    for (int64_t i = 0; i < width; ++i) {
      by_base[i] += d[i] * clean[static_cast<size_t>(i)];
      by_sum[i] += d[i] * sum;
    }
  }
  for (int64_t i = 0; i < width; ++i) {
    const int64_t at = begin + i;
    if (base && (wanted & bit(ParameterKind::kScale)) != 0)
      gradients[slots.scale + at] += by_base[i] / values[slots.scale + at];
    if (base && slots.zero >= 0 && (wanted & bit(ParameterKind::kZero)) != 0)
      gradients[slots.zero + at] -= work_->scale[static_cast<size_t>(part.first + at)] * by_sum[i];
    if (slots.bias >= 0 && (wanted & bit(ParameterKind::kBias)) != 0)
      gradients[slots.bias + at] += plain[i];
    if (factor)
      for (int64_t r = 0; r < rank; ++r)
        gradients[slots.b + r * linear.n + at] += by_latent[r * 64 + i];
  }
}

// With w = s0·m·(q − z) per group:  dm = s0 Σ G·(q − z),  dz = −s0·m Σ G,  G = Σ dy·xᵀ.
template <class Ops>
void Site<Ops>::group_gradients(Ops& ops, const Part& part, const Real* values, int64_t m,
                                const Factor* input, KindSet wanted, Real* gradients) {
  const bool scales = (wanted & bit(ParameterKind::kScale)) != 0;
  const StudentLinear& linear = *part.linear;
  const LinearSlots& slots = linear.slots;
  const bool zeros = slots.zero >= 0 && (wanted & bit(ParameterKind::kZero)) != 0;
  if (!scales && !zeros) return;
  Real* weight = work_->weight_gradient.get(linear.n * k_);
  ops.gemm({linear.n, k_, m, work_->reverse_product.data() + part.first, extended_, true, input, k_,
            false, weight, k_});
  const int64_t group = linear.group;
  ops.parallel(linear.n, 4, [&](int64_t begin, int64_t end) {
    std::vector<Real> codes(static_cast<size_t>(group));
    const std::vector<Real> ones(static_cast<size_t>(group), Real{1});
    for (int64_t at = begin * linear.groups(); at < end * linear.groups(); ++at) {
      const Real* g = weight + at * group;
      std::copy(linear.codes.data() + at * group, linear.codes.data() + (at + 1) * group,
                codes.begin());
      const Real start = static_cast<Real>(linear.scales[static_cast<size_t>(at)]);
      const Real zero =
          slots.zero < 0 ? static_cast<Real>(1 << (linear.bits - 1)) : values[slots.zero + at];
      const Real total = dot(g, ones.data(), group);
      if (scales)
        gradients[slots.scale + at] += start * (dot(g, codes.data(), group) - zero * total);
      if (zeros) gradients[slots.zero + at] -= start * values[slots.scale + at] * total;
    }
  });
}

// dA = Σ dz·xᵀ
template <class Ops>
void Site<Ops>::factor_a_gradients(Ops& ops, int64_t m, const Factor* input,
                                   Real* gradients) const {
  constexpr int64_t kBlock = 64;
  const Real* dlatent = work_->dlatent.data();
  ops.parallel((k_ + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
    std::vector<Real> sums(static_cast<size_t>(ranks_ * kBlock));
    std::array<Real, kBlock> x;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      const int64_t width = std::min(kBlock, k_ - first);
      std::fill(sums.begin(), sums.end(), Real{0});
      for (int64_t t = 0; t < m; ++t) {
        const Factor* row = input + t * k_ + first;
        for (int64_t j = 0; j < width; ++j) x[static_cast<size_t>(j)] = Ops::from_factor(row[j]);
        for (int64_t r = 0; r < ranks_; ++r)
          axpy(dlatent[t * ranks_ + r], x.data(), sums.data() + r * kBlock, width);
      }
      for (const Part& part : parts_)
        for (int64_t r = 0; r < part.linear->rank; ++r)
          axpy(Real{1}, sums.data() + (part.first_rank + r) * kBlock,
               gradients + part.linear->slots.a + r * k_ + first, width);
    }
  });
}

}  // namespace spear::gradients
