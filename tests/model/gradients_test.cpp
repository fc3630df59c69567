#include "spear/model/gradients.h"

#include <cmath>
#include <string>

#include "gradients_case.h"
#include "support/closeness.h"

namespace spear {
namespace {

using test::GradientCase;
using test::PlainGraph;

class Gradients : public ::testing::TestWithParam<const char*> {};

double largest(const std::vector<double>& values, const ParameterSpan& span) {
  double out = 0;
  for (int64_t i = 0; i < span.count(); ++i)
    out = std::max(out, std::fabs(values[static_cast<size_t>(span.offset + i)]));
  return out;
}

// FP64 against FP64: sums of at most some hundred terms in another order, through two layers.
TEST_P(Gradients, AgreeWithPyTorchForEveryTrainable) {
  const GradientCase from(GetParam());
  PlainGraph<> graph(from);
  const std::vector<double> gradient = graph.gradient(from.values);
  EXPECT_NEAR(graph.kl, from.arrays.at("kl")[0], 1e-12 * std::fabs(graph.kl));
  for (const ParameterSpan& span : from.student.spans) {
    const double bound = 1e-10 * largest(from.expected, span);
    EXPECT_GT(bound, 0.0) << span.name << " has no gradient: the golden proves nothing";
    for (int64_t i = 0; i < span.count(); ++i) {
      const auto at = static_cast<size_t>(span.offset + i);
      ASSERT_NEAR(gradient[at], from.expected[at], bound) << span.name << "[" << i << "]";
    }
  }
}

// The error of a central difference is h²·f'''/6 + u·f/h: with h = 1e-5 about 1e-10 of the loss
// each.
TEST_P(Gradients, AgreeWithFiniteDifferences) {
  const GradientCase from(GetParam());
  PlainGraph<> graph(from);
  const std::vector<double> gradient = graph.gradient(from.values);
  const double square = std::pow(from.arrays.at("temperature")[0], 2);
  std::vector<double> values = from.values;
  constexpr double kStep = 1e-5;
  for (const ParameterSpan& span : from.student.spans)
    for (int64_t i = 0; i < span.count(); i += std::max<int64_t>(1, span.count() / 3)) {
      const auto at = static_cast<size_t>(span.offset + i);
      values[at] = from.values[at] + kStep;
      const double above = graph.loss(values);
      values[at] = from.values[at] - kStep;
      const double below = graph.loss(values);
      values[at] = from.values[at];
      const double slope = square * (above - below) / (2 * kStep);
      ASSERT_NEAR(gradient[at], slope, 1e-8 + 1e-6 * largest(gradient, span))
          << span.name << "[" << i << "]";
    }
}

TEST_P(Gradients, AreTheSameWhetherActivationsAreKeptOrRecomputed) {
  const GradientCase from(GetParam());
  PlainGraph<> kept(from, true);
  PlainGraph<> recomputed(from, false);
  EXPECT_EQ(kept.gradient(from.values), recomputed.gradient(from.values));
  EXPECT_EQ(kept.kl, recomputed.kl);
  EXPECT_EQ(kept.kl, recomputed.loss(from.values));
}

TEST_P(Gradients, AreGivenOnlyForTheKindsWanted) {
  const GradientCase from(GetParam());
  PlainGraph<> graph(from);
  const std::vector<double> all = graph.gradient(from.values);
  std::vector<KindSet> sets = {kGateKinds};  // a gate's four come together
  for (int kind = 0; kind < kParameterKinds; ++kind)
    if (const KindSet one = bit(static_cast<ParameterKind>(kind)); (one & kGateKinds) == 0)
      sets.push_back(one);
  for (const KindSet wanted : sets) {
    const std::vector<double> some = graph.gradient(from.values, wanted);
    for (const ParameterSpan& span : from.student.spans)
      for (int64_t i = 0; i < span.count(); ++i) {
        const auto at = static_cast<size_t>(span.offset + i);
        const double expected = (bit(span.kind) & wanted) != 0 ? all[at] : 0.0;
        ASSERT_NEAR(some[at], expected, 1e-12 * std::fabs(expected)) << span.name;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Gradients, ::testing::Values("channel", "group"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace spear
