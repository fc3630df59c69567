#include "spear/kernels/reverse_ops.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace spear::ref {

// y_j = w_j x_j r with r = (Σx²/n + eps)^(-1/2): dx_j += r (w_j dy_j − x_j r² Σ_i w_i dy_i x_i / n)
void rms_norm_backward(const RmsNormBackwardArgs& a) {
  std::vector<double> dweight(static_cast<size_t>(a.dweight != nullptr ? a.n : 0), 0.0);
  for (int64_t i = 0; i < a.m; ++i) {
    const float* x = a.x + i * a.n;
    const float* dy = a.dy + i * a.n;
    const double r = a.inverse_rms[i];
    double dot = 0;
    for (int64_t j = 0; j < a.n; ++j)
      dot += (a.weight == nullptr ? 1.0 : a.weight[j]) * dy[j] * static_cast<double>(x[j]);
    for (int64_t j = 0; j < a.n; ++j) {
      const double w = a.weight == nullptr ? 1.0 : a.weight[j];
      const double dx = r * (w * dy[j] - x[j] * r * r * dot / static_cast<double>(a.n));
      a.dx[i * a.n + j] = static_cast<float>(a.dx[i * a.n + j] + dx);
      if (a.dweight != nullptr) dweight[j] += static_cast<double>(dy[j]) * x[j] * r;
    }
  }
  for (size_t j = 0; j < dweight.size(); ++j)
    a.dweight[j] = static_cast<float>(a.dweight[j] + dweight[j]);
}

void silu_mul_backward(const SiluMulBackwardArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) {
    const double gate = a.gate[i];
    const double up = a.up[i];
    const double dy = a.dy[i];
    const double sigmoid = 1.0 / (1.0 + std::exp(-gate));
    a.dup[i] = static_cast<float>(dy * gate * sigmoid);
    a.dgate[i] = static_cast<float>(dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
  }
}

namespace {

// The rows of one head of one sequence, as strided matrices [length, head_dim].
struct HeadViews {
  int64_t q_offset, q_stride, kv_offset, kv_stride;
};

HeadViews head_views(const DenseAttentionArgs& a, int64_t sequence, int64_t head) {
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  return {.q_offset = (sequence * a.length * a.heads + head) * a.head_dim,
          .q_stride = a.heads * a.head_dim,
          .kv_offset = (sequence * a.length * a.kv_heads + kv_head) * a.head_dim,
          .kv_stride = a.kv_heads * a.head_dim};
}

double dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) sum += static_cast<double>(a[j]) * b[j];
  return sum;
}

void attend_head(const DenseAttentionArgs& a, int64_t sequence, int64_t head) {
  const HeadViews at = head_views(a, sequence, head);
  const int64_t d = a.head_dim;
  std::vector<double> scores(static_cast<size_t>(a.length));
  std::vector<double> sum(static_cast<size_t>(d));
  for (int64_t i = 0; i < a.length; ++i) {
    const float* q = a.q + at.q_offset + i * at.q_stride;
    double highest = -INFINITY;
    for (int64_t t = 0; t <= i; ++t) {
      scores[t] = dot(q, a.k + at.kv_offset + t * at.kv_stride, d) * a.scale;
      highest = std::max(highest, scores[t]);
    }
    double total = 0;
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t t = 0; t <= i; ++t) {
      const double p = std::exp(scores[t] - highest);
      total += p;
      const float* v = a.v + at.kv_offset + t * at.kv_stride;
      for (int64_t j = 0; j < d; ++j) sum[j] += p * v[j];
    }
    for (int64_t j = 0; j < d; ++j)
      a.y[at.q_offset + i * at.q_stride + j] = static_cast<float>(sum[j] / total);
    if (a.log_sum != nullptr)
      a.log_sum[(sequence * a.heads + head) * a.length + i] =
          static_cast<float>(highest + std::log(total));
  }
}

}  // namespace

void dense_attention(const DenseAttentionArgs& args) {
  for (int64_t sequence = 0; sequence < args.batch; ++sequence)
    for (int64_t head = 0; head < args.heads; ++head) attend_head(args, sequence, head);
}

// p = softmax(s), s = scale q·k: dv = Σ p dy, ds = p (dy·v − dy·y), dq = scale Σ ds k, dk = scale Σ
// ds q. The softmax is made again from q and k, not from log_sum, so that this twin depends on
// nothing computed before but y.
void dense_attention_backward(const DenseAttentionBackwardArgs& args) {
  const DenseAttentionArgs& a = args.forward;
  const int64_t d = a.head_dim;
  const auto kv_count = static_cast<size_t>(a.batch * a.length * a.kv_heads * d);
  std::vector<double> dk(kv_count, 0.0);
  std::vector<double> dv(kv_count, 0.0);
  std::vector<double> scores(static_cast<size_t>(a.length));
  std::vector<double> dq(static_cast<size_t>(d));
  for (int64_t item = 0; item < a.batch * a.heads * a.length; ++item) {
    const int64_t i = item % a.length;
    const HeadViews at = head_views(a, item / a.length / a.heads, item / a.length % a.heads);
    const int64_t row = at.q_offset + i * at.q_stride;
    double highest = -INFINITY;
    for (int64_t t = 0; t <= i; ++t) {
      scores[t] = dot(a.q + row, a.k + at.kv_offset + t * at.kv_stride, d) * a.scale;
      highest = std::max(highest, scores[t]);
    }
    double total = 0;
    for (int64_t t = 0; t <= i; ++t) total += std::exp(scores[t] - highest);
    const double mean = dot(args.dy + row, a.y + row, d);
    std::fill(dq.begin(), dq.end(), 0.0);
    for (int64_t t = 0; t <= i; ++t) {
      const int64_t key = at.kv_offset + t * at.kv_stride;
      const double p = std::exp(scores[t] - highest) / total;
      const double ds = p * (dot(args.dy + row, a.v + key, d) - mean) * a.scale;
      for (int64_t j = 0; j < d; ++j) {
        dq[j] += ds * a.k[key + j];
        dk[key + j] += ds * a.q[row + j];
        dv[key + j] += p * args.dy[row + j];
      }
    }
    for (int64_t j = 0; j < d; ++j) args.dq[row + j] = static_cast<float>(dq[j]);
  }
  for (size_t j = 0; j < kv_count; ++j) {
    args.dk[j] = static_cast<float>(dk[j]);
    args.dv[j] = static_cast<float>(dv[j]);
  }
}

}  // namespace spear::ref
