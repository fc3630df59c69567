// The operations of model/gradients_graph.h as plain loops in one scalar type: the FP64 build of
// the reverse pass, which finite differences and PyTorch's autograd are compared with. One thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "spear/base/dtype.h"
#include "spear/model/gradients_graph_reverse.h"

namespace spear::test {

// `kRounded` rounds what products read to BF16, where training does.
template <class Scalar, bool kRounded = false>
class PlainOps {
 public:
  using Real = Scalar;
  using Factor = Scalar;

  explicit PlainOps(const ModelConfig& config) : config_(config) {}

  static Factor to_factor(Real value) {
    return kRounded ? float_from_bf16(bf16_from_float(static_cast<float>(value))) : value;
  }
  static Real from_factor(Factor value) { return value; }

  template <class Body>
  void parallel(int64_t count, int64_t, const Body& body) {
    if (count > 0) body(int64_t{0}, count);
  }

  void gemm(const gradients::Product<Real, Factor>& p) {
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t j = 0; j < p.n; ++j) {
        Real sum = 0;
        for (int64_t l = 0; l < p.k; ++l)
          sum += (p.transpose_a ? p.a[l * p.lda + i] : p.a[i * p.lda + l]) *
                 (p.transpose_b ? p.b[j * p.ldb + l] : p.b[l * p.ldb + j]);
        p.c[i * p.ldc + j] = sum;
      }
  }

  void rms_norm(int64_t m, int64_t n, const Real* x, const Real* weight, Real* y, Real* inverse) {
    for (int64_t t = 0; t < m; ++t) {
      Real sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += x[t * n + i] * x[t * n + i];
      inverse[t] =
          1 / std::sqrt(sum / static_cast<Real>(n) + static_cast<Real>(config_.rms_norm_eps));
      for (int64_t i = 0; i < n; ++i)
        y[t * n + i] = x[t * n + i] * inverse[t] * (weight == nullptr ? 1 : weight[i]);
    }
  }

  void rms_norm_backward(int64_t m, int64_t n, const Real* x, const Real* weight,
                         const Real* inverse, const Real* dy, Real* dx, Real* dweight) {
    for (int64_t t = 0; t < m; ++t) {
      const Real r = inverse[t];
      Real mean = 0;
      for (int64_t i = 0; i < n; ++i) {
        const Real w = weight == nullptr ? 1 : weight[i];
        mean += dy[t * n + i] * w * x[t * n + i] / static_cast<Real>(n);
        if (dweight != nullptr) dweight[i] += dy[t * n + i] * x[t * n + i] * r;
      }
      for (int64_t i = 0; i < n; ++i)
        dx[t * n + i] += r * dy[t * n + i] * (weight == nullptr ? 1 : weight[i]) -
                         r * r * r * mean * x[t * n + i];
    }
  }

  void rope(int64_t m, int64_t heads, int64_t head_dim, Real* x, const int32_t* positions,
            bool inverse) {
    const int64_t half = head_dim / 2;
    for (int64_t t = 0; t < m; ++t)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < half; ++i) {
          const Real angle = static_cast<Real>(positions[t]) *
                             std::pow(static_cast<Real>(config_.rope_theta),
                                      -2 * static_cast<Real>(i) / static_cast<Real>(head_dim));
          const Real cosine = std::cos(angle);
          const Real sine = inverse ? -std::sin(angle) : std::sin(angle);
          Real* row = x + (t * heads + h) * head_dim;
          const Real low = row[i];
          const Real high = row[i + half];
          row[i] = low * cosine - high * sine;
          row[i + half] = high * cosine + low * sine;
        }
  }

  void silu_mul(int64_t count, const Real* gate, const Real* up, Real* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  }

  void silu_mul_backward(int64_t count, const Real* gate, const Real* up, const Real* dy,
                         Real* dgate, Real* dup) {
    for (int64_t i = 0; i < count; ++i) {
      const Real sigmoid = 1 / (1 + std::exp(-gate[i]));
      dup[i] = dy[i] * gate[i] * sigmoid;
      dgate[i] = dy[i] * up[i] * sigmoid * (1 + gate[i] * (1 - sigmoid));
    }
  }

  void attention(int64_t batch, int64_t length, const Real* q, const Real* k, const Real* v,
                 Real* y, Real* log_sum) {
    each_query(batch, length, [&](int64_t row, int64_t head, int64_t first, int64_t position) {
      std::vector<Real> weights = scores(q, k, row, head, first, position);
      Real sum = 0;
      for (Real& w : weights) sum += w = std::exp(w);
      log_sum[((row / length) * config_.num_attention_heads + head) * length + position] =
          std::log(sum);
      Real* out = y + (row * config_.num_attention_heads + head) * config_.head_dim;
      std::fill(out, out + config_.head_dim, Real{0});
      for (int64_t j = 0; j <= position; ++j)
        for (int64_t d = 0; d < config_.head_dim; ++d)
          out[d] += weights[static_cast<size_t>(j)] / sum * key(v, first + j, head)[d];
    });
  }

  void attention_backward(int64_t batch, int64_t length, const Real* q, const Real* k,
                          const Real* v, const Real* y, const Real* log_sum, const Real* dy,
                          Real* dq, Real* dk, Real* dv) {
    const int64_t width = config_.head_dim;
    std::fill(dk, dk + batch * length * config_.kv_size(), Real{0});
    std::fill(dv, dv + batch * length * config_.kv_size(), Real{0});
    each_query(batch, length, [&](int64_t row, int64_t head, int64_t first, int64_t position) {
      const std::vector<Real> raw = scores(q, k, row, head, first, position);
      const int64_t at = (row * config_.num_attention_heads + head) * width;
      const Real lse =
          log_sum[((row / length) * config_.num_attention_heads + head) * length + position];
      Real mean = 0;
      for (int64_t d = 0; d < width; ++d) mean += dy[at + d] * y[at + d];
      std::fill(dq + at, dq + at + width, Real{0});
      for (int64_t j = 0; j <= position; ++j) {
        const Real w = std::exp(raw[static_cast<size_t>(j)] - lse);
        Real dw = 0;
        for (int64_t d = 0; d < width; ++d) {
          dw += dy[at + d] * key(v, first + j, head)[d];
          key(dv, first + j, head)[d] += w * dy[at + d];
        }
        const Real ds = w * (dw - mean) / std::sqrt(static_cast<Real>(width));
        for (int64_t d = 0; d < width; ++d) {
          dq[at + d] += ds * key(k, first + j, head)[d];
          key(dk, first + j, head)[d] += ds * q[at + d];
        }
      }
    });
  }

  // x·S·(F ⊗ H)·S', by the definition of the structured rotation.
  void rotate(int64_t m, const RotationView& rotation, bool inverse, Real* x) {
    const int64_t n = rotation.n;
    std::vector<Real> matrix(static_cast<size_t>(n * n));
    for (int64_t a = 0; a < n; ++a)
      for (int64_t b = 0; b < n; ++b) {
        const auto bits = static_cast<uint64_t>((a % rotation.h) & (b % rotation.h));
        const Real sign = __builtin_popcountll(bits) % 2 == 0 ? 1 : -1;
        matrix[static_cast<size_t>(a * n + b)] =
            static_cast<Real>(rotation.signs_in[a]) * static_cast<Real>(rotation.signs_out[b]) *
            sign *
            static_cast<Real>(rotation.factor[a / rotation.h * rotation.p + b / rotation.h]) /
            std::sqrt(static_cast<Real>(rotation.h));
      }
    std::vector<Real> row(static_cast<size_t>(n));
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t b = 0; b < n; ++b) {
        row[static_cast<size_t>(b)] = 0;
        for (int64_t a = 0; a < n; ++a)
          row[static_cast<size_t>(b)] +=
              x[t * n + a] * matrix[static_cast<size_t>(inverse ? b * n + a : a * n + b)];
      }
      std::copy(row.begin(), row.end(), x + t * n);
    }
  }

  void kl(int64_t m, int64_t vocab, const Real* teacher, Real* student, double temperature,
          double scale, Real* out) {
    const Real t = static_cast<Real>(temperature);
    for (int64_t i = 0; i < m; ++i) {
      const Real* p = teacher + i * vocab;
      Real* q = student + i * vocab;
      const Real log_p = log_sum(p, vocab, t);
      const Real log_q = log_sum(q, vocab, t);
      out[i] = 0;
      for (int64_t j = 0; j < vocab; ++j) {
        const Real a = p[j] / t - log_p;
        const Real b = q[j] / t - log_q;
        out[i] += std::exp(a) * (a - b);
        if (scale != 0) q[j] = static_cast<Real>(scale) * t * (std::exp(b) - std::exp(a));
      }
    }
  }

 private:
  static Real log_sum(const Real* x, int64_t count, Real temperature) {
    Real sum = 0;
    for (int64_t j = 0; j < count; ++j) sum += std::exp(x[j] / temperature);
    return std::log(sum);
  }
  template <class T>
  T* key(T* base, int64_t row, int64_t head) const {
    const int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
    return base + (row * config_.num_key_value_heads + head / shared) * config_.head_dim;
  }
  template <class Body>
  void each_query(int64_t batch, int64_t length, const Body& body) {
    for (int64_t row = 0; row < batch * length; ++row)
      for (int64_t head = 0; head < config_.num_attention_heads; ++head)
        body(row, head, row / length * length, row % length);
  }
  std::vector<Real> scores(const Real* q, const Real* k, int64_t row, int64_t head, int64_t first,
                           int64_t position) const {
    std::vector<Real> out;
    for (int64_t j = 0; j <= position; ++j) {
      Real sum = 0;
      for (int64_t d = 0; d < config_.head_dim; ++d)
        sum += q[(row * config_.num_attention_heads + head) * config_.head_dim + d] *
               key(k, first + j, head)[d];
      out.push_back(sum / std::sqrt(static_cast<Real>(config_.head_dim)));
    }
    return out;
  }

  const ModelConfig& config_;
};

}  // namespace spear::test
