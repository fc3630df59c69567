#include <cmath>
#include <limits>

#include "spear/base/rng.h"

#include "kernels/each_isa.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

constexpr double kU = test::kRoundoffF32;
constexpr double kSummed =
    70;  // a lane adds 64 terms before doubles take over, and its own roundings

// A softmax row in doubles.
struct Row {
  std::vector<double> shifted;  // (x − highest) / temperature
  std::vector<double> p;
  double spread = 0;  // Σ p |shifted|
};

Row softmax(const float* x, int64_t count, double temperature) {
  Row row;
  double highest = -std::numeric_limits<double>::infinity();
  for (int64_t j = 0; j < count; ++j) highest = std::max(highest, static_cast<double>(x[j]));
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) {
    row.shifted.push_back((x[j] - highest) / temperature);
    sum += std::exp(row.shifted.back());
  }
  for (const double s : row.shifted) {
    row.p.push_back(std::exp(s) / sum);
    row.spread += row.p.back() * std::abs(s);
  }
  return row;
}

// Targets of m rows: the last tokens, backwards.
std::vector<int32_t> last_tokens(int64_t m, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < m; ++i) ids.push_back(static_cast<int32_t>(vocab - 1 - i % vocab));
  return ids;
}

void check_log_sum_exp(int64_t m, int64_t vocab, Rng& rng, ThreadPool& pool,
                       const cpu::SimdLoops& loops) {
  ASSERT_GT(m, 0);
  auto x = test::normal_values(m * vocab, rng, 6);
  if (vocab > 1) x[0] = -std::numeric_limits<float>::infinity();
  test::GuardedBuffer<float> sums(m);
  test::GuardedBuffer<int32_t> best(m);
  test::GuardedBuffer<float> hit(m);
  const std::vector<int32_t> targets = last_tokens(m, vocab);
  std::vector<float> want(static_cast<size_t>(m));
  std::vector<int32_t> want_best(static_cast<size_t>(m));
  std::vector<float> want_hit(static_cast<size_t>(m));
  cpu::log_sum_exp({m, vocab, x.data(), sums.data(), best.data(), targets.data(), hit.data()}, pool,
                   loops);
  ref::log_sum_exp(
      {m, vocab, x.data(), want.data(), want_best.data(), targets.data(), want_hit.data()});
  if (vocab > 1) x[0] = -1e4f;  // as good as minus infinity, and finite in the bound
  std::vector<double> bounds;
  for (int64_t i = 0; i < m; ++i) {
    const double spread = softmax(x.data() + i * vocab, vocab, 1).spread;
    bounds.push_back(kU * (spread + test::kExpError + kSummed + 2 * std::abs(want[i])));
  }
  EXPECT_TRUE(test::all_within(sums.span(), want, bounds)) << vocab;
  EXPECT_EQ(best.values(), want_best) << vocab;
  EXPECT_EQ(hit.values(), want_hit) << vocab;
  EXPECT_TRUE(sums.intact() && best.intact() && hit.intact());
}

TEST(LogSumExp, AgreesWithThePlainTwin) {
  Rng rng(1);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const int64_t vocab : {1, 2, 15, 16, 17, 100, 1000, 5003})
      for (const int64_t m : {1, 5}) check_log_sum_exp(m, vocab, rng, pool, loops);
  });
}

TEST(LogSumExp, TheLowestIndexWinsATie) {
  std::vector<float> x(100, -1.0f);
  x[37] = x[90] = 2.0f;
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    int32_t best = -1;
    cpu::log_sum_exp({.m = 1, .vocab = 100, .logits = x.data(), .argmax = &best}, pool, loops);
    EXPECT_EQ(best, 37);
  });
}

struct KlBounds {
  double kl = 0;
  std::vector<double> gradient;
};

// docs/numerics.md: the shifted logits carry 3 roundoffs, exponentials 4 more, sums 70.
KlBounds kl_bounds(const Row& t, const Row& s, double scale) {
  KlBounds b;
  const double sum_t = 3 * t.spread + kSummed;
  const double sum_s = 3 * s.spread + kSummed;
  double cross = 0;
  double difference = 0;
  for (size_t j = 0; j < t.p.size(); ++j) {
    const double gap = std::abs(t.shifted[j] - s.shifted[j]);
    difference += t.p[j] * gap;
    cross += t.p[j] * ((3 * std::abs(t.shifted[j]) + test::kExpError + kSummed) * gap +
                       3 * std::abs(t.shifted[j]) + 3 * std::abs(s.shifted[j]));
    const auto part = [&](const Row& row, double sum) {
      return row.p[j] * (3 * std::abs(row.shifted[j]) + test::kExpError + sum + 3);
    };
    b.gradient.push_back(kU * scale * (part(t, sum_t) + part(s, sum_s)) + 1e-36);
  }
  b.kl = kU * (sum_t + sum_s + cross + sum_t * difference + 2);
  return b;
}

TEST(KlDivergence, AgreesWithThePlainTwinAndItsGradient) {
  Rng rng(2);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const int64_t vocab : {1, 2, 15, 16, 17, 1000, 3001}) {
      for (const float temperature : {1.0f, 2.0f}) {
        for (const float scale : {0.0f, 0.125f}) {
          const int64_t m = 3;
          const auto teacher = test::normal_values(m * vocab, rng, 4);
          auto student = test::normal_values(m * vocab, rng, 1);
          for (int64_t j = 0; j < m * vocab; ++j) student[j] += teacher[j];
          auto actual = student;
          auto want = student;
          test::GuardedBuffer<float> kl(m);
          std::vector<float> want_kl(static_cast<size_t>(m));
          cpu::kl_divergence(
              {m, vocab, teacher.data(), actual.data(), temperature, scale, kl.data()}, pool,
              loops);
          ref::kl_divergence(
              {m, vocab, teacher.data(), want.data(), temperature, scale, want_kl.data()});
          std::vector<double> kl_bound;
          std::vector<double> gradient_bound;
          for (int64_t i = 0; i < m; ++i) {
            const KlBounds b = kl_bounds(softmax(teacher.data() + i * vocab, vocab, temperature),
                                         softmax(student.data() + i * vocab, vocab, temperature),
                                         scale * temperature);
            kl_bound.push_back(b.kl);
            gradient_bound.insert(gradient_bound.end(), b.gradient.begin(), b.gradient.end());
          }
          EXPECT_TRUE(test::all_within(kl.span(), want_kl, kl_bound)) << vocab;
          EXPECT_TRUE(kl.intact());
          if (scale == 0) {
            EXPECT_EQ(actual, student);
          } else {
            EXPECT_TRUE(test::all_within(actual, want, gradient_bound, {vocab})) << vocab;
          }
        }
      }
    }
  });
}

TEST(KlDivergence, IsNothingBetweenEqualRows) {
  Rng rng(3);
  const auto logits = test::normal_values(500, rng, 5);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    auto student = logits;
    float kl = -1;
    cpu::kl_divergence({.m = 1,
                        .vocab = 500,
                        .teacher = logits.data(),
                        .student = student.data(),
                        .gradient_scale = 1,
                        .kl = &kl},
                       pool, loops);
    EXPECT_EQ(kl, 0.0f);
    for (const float g : student) EXPECT_NEAR(g, 0.0f, kU);  // p (1 − 1), one product fused
  });
}

// Central differences of the twin's own KL: T² KL has the gradient the twin writes.
TEST(KlDivergence, TheTwinsGradientIsTheSlopeOfItsLoss) {
  Rng rng(4);
  const int64_t vocab = 12;
  const float temperature = 2;
  const auto teacher = test::normal_values(vocab, rng, 2);
  const auto student = test::normal_values(vocab, rng, 2);
  const auto loss = [&](int64_t at, float step) {
    auto moved = student;
    moved[at] += step;
    float kl = 0;
    ref::kl_divergence({1, vocab, teacher.data(), moved.data(), temperature, 0, &kl});
    return static_cast<double>(temperature) * temperature * kl;
  };
  auto gradient = student;
  float kl = 0;
  ref::kl_divergence({1, vocab, teacher.data(), gradient.data(), temperature, 1, &kl});
  for (int64_t j = 0; j < vocab; ++j) {
    const float h = 0x1p-5f;
    const double wide = (loss(j, h) - loss(j, -h)) / (2 * h);
    const double narrow = (loss(j, h / 2) - loss(j, -h / 2)) / h;
    const double rounding = 4 * temperature * temperature * kl * kU / h;
    EXPECT_NEAR(gradient[j], narrow, 2 * std::abs(wide - narrow) + rounding + 1e-6);
  }
}

}  // namespace
}  // namespace spear
