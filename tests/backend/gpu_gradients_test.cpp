// The reverse pass on a GPU against the FP64 graph that finite differences and PyTorch confirm
// (tests/model). Skipped, with the reason, where there is no GPU.
#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"
#include "spear/model/gradients.h"

#include "model/gradients_case.h"

namespace spear {
namespace {

using test::PlainGraph;
using test::TrainingCase;

class GradientsOnTheGpu : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Backend>> made = make_gpu_backend(0);
    if (!made) GTEST_SKIP() << made.error().message;
    backend_ = std::move(*made);
    pass_ = make_reverse_pass(from_.student, from_.head(), *backend_, pool_, {});
  }
  std::vector<float> gradient(KindSet wanted = ~KindSet{0}) {
    std::vector<float> out(values_.size(), 0.0f);
    kl_ = pass_->loss_and_gradient(values_, batch_, wanted, 1.0, out);
    return out;
  }

  TrainingCase from_{GetParam()};
  const std::vector<float>& values_ = from_.floats32;
  const StudentBatch batch_ = from_.batch();
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ReversePass> pass_;
  double kl_ = 0;
};

// BF16 products move the gradients of these extreme cases by up to a tenth, however they are
// summed: by how much, the FP64 graph with rounded factors tells. The device rounds at other places
// (weights, not codes), so its error is another draw of the same size; twice that is allowed. A
// wrong formula or a lost term moves a kind by tens of per cent.
TEST_P(GradientsOnTheGpu, AgreeWithFp64AsFarAsBf16Can) {
  PlainGraph<> plain(from_);
  const std::vector<double> expected = plain.gradient(from_.values);
  PlainGraph<true> coarse(from_);
  const std::vector<double> rounded = coarse.gradient(from_.values);
  const std::vector<float> actual = gradient();
  EXPECT_NEAR(kl_, plain.kl, 2 * std::fabs(coarse.kl - plain.kl) + 0x1p-8 * plain.kl);
  for (int kind = 0; kind < kParameterKinds; ++kind) {
    double error = 0;
    double allowed = 0;
    for (const ParameterSpan& span : from_.student.spans)
      for (int64_t i = span.offset;
           static_cast<int>(span.kind) == kind && i < span.offset + span.count(); ++i) {
        const auto at = static_cast<size_t>(i);
        error += std::pow(static_cast<double>(actual[at]) - expected[at], 2);
        allowed += std::pow(rounded[at] - expected[at], 2);
      }
    EXPECT_LE(std::sqrt(error), 2 * std::sqrt(allowed)) << "parameters of kind " << kind;
  }
}

TEST_P(GradientsOnTheGpu, AreTheSameEveryTime) {
  const std::vector<float> first = gradient();
  EXPECT_EQ(first, gradient());
}

TEST_P(GradientsOnTheGpu, LeaveUnwantedKindsAlone) {
  const std::vector<float> all = gradient();
  const std::vector<float> some =
      gradient(bit(ParameterKind::kScale) | bit(ParameterKind::kFactorB));
  for (const ParameterSpan& span : from_.student.spans) {
    const bool wanted = span.kind == ParameterKind::kScale || span.kind == ParameterKind::kFactorB;
    for (int64_t i = span.offset; i < span.offset + span.count(); ++i)
      EXPECT_EQ(some[static_cast<size_t>(i)], wanted ? all[static_cast<size_t>(i)] : 0.0f)
          << span.name;
  }
}

TEST_P(GradientsOnTheGpu, LossesAndRestartsAgree) {
  gradient();
  EXPECT_EQ(pass_->loss(values_, batch_), kl_);
  EXPECT_EQ(pass_->loss_from(0, values_, batch_), kl_);
  const auto last = static_cast<int32_t>(from_.student.layers.size()) - 1;
  EXPECT_EQ(pass_->loss_from(last, values_, batch_), kl_);
}

INSTANTIATE_TEST_SUITE_P(Cases, GradientsOnTheGpu, ::testing::Values("channel", "group"));

}  // namespace
}  // namespace spear
