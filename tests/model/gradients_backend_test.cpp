// The reverse pass as training runs it, on the processor's backend, against the FP64 graph.
#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"
#include "spear/model/gradients.h"

#include "gradients_case.h"

namespace spear {
namespace {

using test::PlainGraph;
using test::TrainingCase;

class GradientsOnTheBackend : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<ReversePass> pass(Compute compute, bool keep, bool matrices) {
    return make_reverse_pass(from_.student, from_.head(), *backend_, pool_,
                             {compute, keep, matrices});
  }
  std::vector<float> gradient(ReversePass& pass) {
    std::vector<float> out(values_.size(), 0.0f);
    kl_ = pass.loss_and_gradient(values_, batch_, ~KindSet{0}, 1.0, out);
    return out;
  }
  // |actual − expected| over |expected|, both over the parameters of one kind.
  double distance(const std::vector<float>& actual, const std::vector<double>& expected,
                  ParameterKind kind) const {
    double error = 0;
    double size = 0;
    for (const ParameterSpan& span : from_.student.spans)
      for (int64_t i = span.offset; span.kind == kind && i < span.offset + span.count(); ++i) {
        error += std::pow(actual[static_cast<size_t>(i)] - expected[static_cast<size_t>(i)], 2);
        size += std::pow(expected[static_cast<size_t>(i)], 2);
      }
    return size == 0 ? 0.0 : std::sqrt(error / size);
  }

  TrainingCase from_{GetParam()};
  const std::vector<float>& values_ = from_.floats32;
  const StudentBatch batch_ = from_.batch();
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  double kl_ = 0;
};

// The way from a parameter to the loss and back is some thirty operations, the longest sums are of
// thirty terms: about a thousand unit roundoffs, all in one direction, are allowed in F32. With
// BF16 the FP64 graph rounds what products read at the same places; now and then a value near the
// middle falls to the other side, which moves a product by 2^-8 of one of its terms.
TEST_P(GradientsOnTheBackend, AgreeWithFp64) {
  PlainGraph<> plain(from_);
  const std::vector<double> expected32 = plain.gradient(from_.values);
  PlainGraph<true> coarse(from_);
  const std::vector<double> expected16 = coarse.gradient(from_.values);
  for (const bool matrices : {true, false}) {
    const std::vector<float> gradient32 = gradient(*pass(Compute::kF32, matrices, matrices));
    EXPECT_NEAR(kl_, plain.kl, 1e3 * 0x1p-24 * plain.kl);
    const std::vector<float> gradient16 = gradient(*pass(Compute::kBF16, !matrices, matrices));
    EXPECT_NEAR(kl_, coarse.kl, 0x1p-8 * coarse.kl);
    for (int kind = 0; kind < kParameterKinds; ++kind) {
      const auto k = static_cast<ParameterKind>(kind);
      EXPECT_LE(distance(gradient32, expected32, k), 1e3 * 0x1p-24) << kind;
      EXPECT_LE(distance(gradient16, expected16, k), 0x1p-8) << kind;
    }
  }
}

TEST_P(GradientsOnTheBackend, AreTheSameBitsWhetherKeptOrRecomputedAndForAnyThreads) {
  const std::vector<float> first = gradient(*pass(Compute::kBF16, true, true));
  EXPECT_EQ(first, gradient(*pass(Compute::kBF16, false, true)));
  EXPECT_EQ(first, gradient(*pass(Compute::kBF16, false, false)));
  EXPECT_EQ(first, gradient(*pass(Compute::kBF16, true, false)));
}

TEST_P(GradientsOnTheBackend, ALossRestartedAtALayerIsTheWholeOne) {
  const auto restarted = pass(Compute::kF32, false, true);
  const auto whole = pass(Compute::kF32, false, true);
  restarted->loss(values_, batch_);
  for (int64_t index = from_.student.module_count() - 1; index >= 0; --index) {
    from_.student.linear(index).compensate = false;
    const double loss = whole->loss(values_, batch_);
    EXPECT_EQ(restarted->loss_from(static_cast<int32_t>(index / kModulesPerLayer), values_, batch_),
              loss)
        << index;
    from_.student.linear(index).compensate = true;
    EXPECT_NE(loss, whole->loss(values_, batch_)) << index;
  }
}

TEST_P(GradientsOnTheBackend, AddToWhatIsThereWithTheirWeight) {
  const auto exact = pass(Compute::kF32, false, true);
  const std::vector<float> once = gradient(*exact);
  std::vector<float> sum(values_.size(), 0.0f);
  exact->loss_and_gradient(values_, batch_, ~KindSet{0}, 0.25, sum);
  exact->loss_and_gradient(values_, batch_, ~KindSet{0}, 0.75, sum);
  for (size_t i = 0; i < sum.size(); ++i)
    ASSERT_NEAR(sum[i], once[i], 1e-4 * std::fabs(once[i]) + 1e-7);
}

INSTANTIATE_TEST_SUITE_P(Cases, GradientsOnTheBackend, ::testing::Values("channel", "group"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace spear
