#include <cmath>

#include "spear/base/rng.h"
#include "spear/kernels/reverse_ops.h"

#include "kernels/attention_reference.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

constexpr double kU = test::kRoundoffF32;

struct Case {
  int64_t batch, length, heads, kv_heads, head_dim;
  std::vector<float> q, k, v, dy, y, log_sum;

  Case(int64_t b, int64_t l, int64_t h, int64_t hk, int64_t d, uint64_t seed)
      : batch(b), length(l), heads(h), kv_heads(hk), head_dim(d) {
    Rng rng(seed);
    q = test::normal_values(b * l * h * d, rng);
    k = test::normal_values(b * l * hk * d, rng);
    v = test::normal_values(b * l * hk * d, rng);
    dy = test::normal_values(b * l * h * d, rng);
    y.resize(q.size());
    log_sum.resize(static_cast<size_t>(b * h * l));
    forward();
  }
  DenseAttentionArgs args() {
    return {batch,    length,        heads,
            kv_heads, head_dim,      q.data(),
            k.data(), v.data(),      1.0f / std::sqrt(static_cast<float>(head_dim)),
            y.data(), log_sum.data()};
  }
  void forward() { ref::dense_attention(args()); }
  std::string text() const {
    return std::to_string(batch) + " x " + std::to_string(length) + ", " + std::to_string(heads) +
           "/" + std::to_string(kv_heads) + " heads of " + std::to_string(head_dim);
  }
  int64_t q_at(int64_t b, int64_t i, int64_t h) const {
    return ((b * length + i) * heads + h) * head_dim;
  }
  int64_t kv_at(int64_t b, int64_t t, int64_t h) const {
    return ((b * length + t) * kv_heads + h / (heads / kv_heads)) * head_dim;
  }
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (int64_t length = 1; length <= 17; ++length) list.emplace_back(1, length, 2, 1, 8, 1);
  for (const int64_t d : {1, 3, 15, 16, 17, 33, 64}) list.emplace_back(2, 9, 2, 2, d, 2);
  for (const int64_t length : {63, 64, 65, 130}) list.emplace_back(1, length, 3, 1, 16, 3);
  list.emplace_back(3, 20, 6, 2, 24, 4);
  return list;
}

struct Bounds {
  std::vector<double> y, log_sum, dq, dk, dv;
};

// Follows the computation: weights p with a relative error, dP = dy·v and D = dy·y with dot product
// errors, then sums.
Bounds bounds_of(Case& c) {
  Bounds out;
  out.dq.assign(c.q.size(), 0.0);
  out.dk.assign(c.k.size(), 0.0);
  out.dv.assign(c.v.size(), 0.0);
  const int64_t d = c.head_dim;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  const double summed = test::gamma(c.length * (c.heads / c.kv_heads) + 4, kU);
  out.y.assign(c.y.size(), 0.0);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t i = 0; i < c.length; ++i) {
        const int64_t at = c.q_at(b, i, h);
        const auto row = test::attention_row(
            c.q.data() + at, [&](int64_t t) { return c.k.data() + c.kv_at(b, t, h); },
            [&](int64_t t) { return c.v.data() + c.kv_at(b, t, h); }, i + 1, d, scale);
        for (int64_t j = 0; j < d; ++j) out.y[at + j] = row.y_bound[j];
        out.log_sum.push_back(row.log_sum_bound);
        double mean = 0;
        double mean_size = 0;
        for (int64_t j = 0; j < d; ++j) {
          mean += row.y[j] * c.dy[at + j];
          mean_size += std::abs(row.y[j] * c.dy[at + j]);
        }
        for (int64_t t = 0; t <= i; ++t) {
          const int64_t key = c.kv_at(b, t, h);
          double dp = 0;
          double dp_size = 0;
          for (int64_t j = 0; j < d; ++j) {
            dp += static_cast<double>(c.dy[at + j]) * c.v[key + j];
            dp_size += std::abs(static_cast<double>(c.dy[at + j]) * c.v[key + j]);
          }
          // p is made from log_sum, a float: its rounding and the twin's count once more.
          const double p_error =
              row.p_error[t] + row.log_sum_bound + 2 * kU * std::abs(row.log_sum);
          const double gap = std::abs(dp - mean);
          const double ds = row.p[t] * gap * scale;
          const double ds_error =
              row.p[t] * scale *
              (test::gamma(d + 2, kU) * (dp_size + mean_size) + (p_error + 4 * kU) * gap);
          for (int64_t j = 0; j < d; ++j) {
            out.dq[at + j] += std::abs(c.k[key + j]) * (ds_error + summed * ds);
            out.dk[key + j] += std::abs(c.q[at + j]) * (ds_error + summed * ds);
            out.dv[key + j] += std::abs(c.dy[at + j]) * row.p[t] * (p_error + summed);
          }
        }
      }
  return out;
}

TEST(DenseAttention, AgreesWithThePlainTwin) {
  for (Case& c : cases()) {
    const Bounds bounds = bounds_of(c);
    test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
      test::GuardedBuffer<float> y(static_cast<int64_t>(c.y.size()));
      test::GuardedBuffer<float> log_sum(static_cast<int64_t>(c.log_sum.size()));
      DenseAttentionArgs args = c.args();
      args.y = y.data();
      args.log_sum = log_sum.data();
      cpu::dense_attention(args, pool, loops);
      EXPECT_TRUE(test::all_within(y.span(), c.y, bounds.y, {c.head_dim})) << c.text();
      EXPECT_TRUE(test::all_within(log_sum.span(), c.log_sum, bounds.log_sum)) << c.text();
      EXPECT_TRUE(y.intact() && log_sum.intact());
    });
  }
}

TEST(DenseAttentionBackward, AgreesWithThePlainTwin) {
  for (Case& c : cases()) {
    const Bounds bounds = bounds_of(c);
    std::vector<float> dq(c.q.size()), dk(c.k.size()), dv(c.v.size());
    ref::dense_attention_backward({c.args(), c.dy.data(), dq.data(), dk.data(), dv.data()});
    test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
      test::GuardedBuffer<float> q(static_cast<int64_t>(dq.size())),
          k(static_cast<int64_t>(dk.size())), v(static_cast<int64_t>(dv.size()));
      cpu::dense_attention_backward({c.args(), c.dy.data(), q.data(), k.data(), v.data()}, pool,
                                    loops);
      EXPECT_TRUE(test::all_within(q.span(), dq, bounds.dq, {c.head_dim})) << c.text();
      EXPECT_TRUE(test::all_within(k.span(), dk, bounds.dk, {c.head_dim})) << c.text();
      EXPECT_TRUE(test::all_within(v.span(), dv, bounds.dv, {c.head_dim})) << c.text();
      EXPECT_TRUE(q.intact() && k.intact() && v.intact());
    });
  }
}

TEST(DenseAttentionBackward, TheTwinIsTheSlopeOfAttention) {
  Case c(1, 6, 4, 2, 5, 9);
  std::vector<float> dq(c.q.size()), dk(c.k.size()), dv(c.v.size());
  ref::dense_attention_backward({c.args(), c.dy.data(), dq.data(), dk.data(), dv.data()});
  double size = 0;
  for (size_t i = 0; i < c.y.size(); ++i) size += std::abs(static_cast<double>(c.y[i]) * c.dy[i]);
  const auto loss = [&] {
    c.forward();
    double sum = 0;
    for (size_t i = 0; i < c.y.size(); ++i) sum += static_cast<double>(c.y[i]) * c.dy[i];
    return sum;
  };
  const auto check = [&](std::vector<float>& parameter, const std::vector<float>& gradient) {
    for (size_t i = 0; i < parameter.size(); ++i) {
      const float old = parameter[i];
      const auto slope = [&](float h) {
        parameter[i] = old + h;
        const double above = loss();
        parameter[i] = old - h;
        const double below = loss();
        parameter[i] = old;
        return (above - below) / (2 * static_cast<double>(h));
      };
      const double wide = slope(0x1p-6f);
      const double narrow = slope(0x1p-7f);
      EXPECT_NEAR(gradient[i], narrow, 2 * std::abs(wide - narrow) + 2 * kU * size * 128 + 1e-9);
    }
  };
  check(c.q, dq);
  check(c.k, dk);
  check(c.v, dv);
}

}  // namespace
}  // namespace spear
