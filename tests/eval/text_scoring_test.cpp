#include "spear/eval/text_scoring.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "eval/naive.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using test::TemporaryDirectory;
using test::TestBackend;

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab, uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint32_t>(vocab))));
  return tokens;
}

Windows windows_of(const Protocol& protocol, int64_t tokens, int32_t bos = -1) {
  const ModelConfig config = test::tiny_config();
  return value_or_throw(cut_windows("random", protocol, random_tokens(tokens, config.vocab_size),
                                    bos, {config.vocab_size, config.max_position_embeddings}));
}

// A reference and an 8-bit student of it.
class TextScoring : public ::testing::Test {
 protected:
  TestBackend backend_;
  DenseModel dense_ = test::tiny_model();
  QuantizedModel quantized_ = test::tiny_quantized(dense_, 4);
  Decoder teacher_{*backend_, dense_, Compute::kF32};
  Decoder student_{*backend_, quantized_, Compute::kF32};
  ScoredModel teacher_name_{"reference", "teacher", Compute::kF32};
  ScoredModel student_name_{"student", "student", Compute::kF32};
  SilentProgress silent_;
};

void expect_naive(Decoder& teacher, Decoder& student, const Windows& windows,
                  const TokenScores& scores) {
  // Float logits of order 10 rounded at 2^-24 over sums of 24 to 48 terms: 1e-4 leaves a margin of
  // ten; positions whose two best tokens lie closer than that may pick either.
  const double bound = 1e-4;
  size_t at = 0;
  for (int64_t w = 0; w < windows.count; ++w) {
    const auto p = test::log_probabilities(teacher, windows.window(w));
    const auto q = test::log_probabilities(student, windows.window(w));
    for (int64_t i = windows.protocol.first(); i + 1 < windows.protocol.context; ++i, ++at) {
      const auto row = static_cast<size_t>(i);
      const auto target = static_cast<size_t>(windows.window(w)[row + 1]);
      ASSERT_NEAR(scores.nll[at], -q[row][target], bound) << at;
      ASSERT_NEAR(scores.kl[at], test::kl_of(p[row], q[row]), bound) << at;
      const auto best = static_cast<size_t>(test::best_of(q[row]));
      ASSERT_NEAR(q[row][static_cast<size_t>(scores.best[at])], q[row][best], bound) << at;
    }
  }
  EXPECT_EQ(at, scores.nll.size());
  EXPECT_EQ(at, scores.kl.size());
}

TEST_F(TextScoring, EqualsTheNaiveLoopByBothProtocols) {
  for (const Protocol& protocol : {Protocol{32, false, 0}, Protocol{32, true, 0}}) {
    for (const int64_t batch_rows : {1, 32, 70, 4096}) {
      const Windows windows = windows_of(protocol, 32 * 7 + 5, 3);
      const ScoringOptions options{.cache_folder = {}, .batch_rows = batch_rows};
      ReferenceStates reference(teacher_, teacher_name_, windows, options);
      reference.compute(silent_);
      expect_naive(teacher_, student_, windows,
                   score_against(student_, student_name_, reference, windows, options, silent_));
    }
  }
}

TEST_F(TextScoring, ReferenceAgainstItselfHasNoDivergence) {
  const Windows windows = windows_of({16, false, 0}, 16 * 9);
  ReferenceStates reference(teacher_, teacher_name_, windows, {});
  reference.compute(silent_);
  const TokenScores self = score_against(teacher_, teacher_name_, reference, windows, {}, silent_);
  for (size_t i = 0; i < self.kl.size(); ++i) {
    ASSERT_NEAR(self.kl[i], 0, 1e-6);
    ASSERT_EQ(self.nll[i], reference.scores().nll[i]);
    ASSERT_EQ(self.best[i], reference.scores().best[i]);
  }
  const TokenScores alone = score_alone(teacher_, teacher_name_, windows, {}, silent_);
  EXPECT_EQ(alone.nll, self.nll);
  EXPECT_TRUE(alone.kl.empty());
}

TEST_F(TextScoring, WiderWeightsAreCloser) {
  const Windows windows = windows_of({32, false, 0}, 32 * 8);
  ReferenceStates reference(teacher_, teacher_name_, windows, {});
  reference.compute(silent_);
  const auto mean_kl = [&](int32_t bits) {
    const QuantizedModel model = test::tiny_quantized(dense_, bits);
    Decoder decoder(*backend_, model, Compute::kF32);
    double sum = 0;
    for (const float kl : score_against(decoder, {}, reference, windows, {}, silent_).kl)
      sum += static_cast<double>(kl);
    return sum;
  };
  const double eight = mean_kl(8);
  EXPECT_LT(eight, mean_kl(4) / 16);  // KL grows with the square of the step: 256 in theory
}

TEST_F(TextScoring, SixteenBitsAreTheReferenceItself) {
  const DenseModel dense = test::tiny_model({}, 2, DType::kBF16);
  QuantizedModel kept;
  kept.config = dense.config;
  kept.embedding = keep_bf16(dense.embedding.view());
  kept.final_norm = dense.final_norm.clone();
  for (const DenseLayer& from : dense.layers) {
    QuantizedLayer& layer = kept.layers.emplace_back();
    layer.input_norm = from.input_norm.clone();
    layer.post_attention_norm = from.post_attention_norm.clone();
    for (const Module module : kModules)
      layer.linear(module).weight = keep_bf16(from.linear(module).weight.view());
  }
  Decoder teacher(*backend_, dense, Compute::kF32);
  Decoder student(*backend_, kept, Compute::kF32);
  const Windows windows = windows_of({32, false, 0}, 32 * 4);
  ReferenceStates reference(teacher, {"reference", "", Compute::kF32}, windows, {});
  reference.compute(silent_);
  const TokenScores scores = score_against(student, student_name_, reference, windows, {}, silent_);
  // The same weights through two product kernels: only the order of sums differs.
  for (size_t i = 0; i < scores.kl.size(); ++i) {
    ASSERT_NEAR(scores.kl[i], 0, 1e-6);
    ASSERT_NEAR(scores.nll[i], reference.scores().nll[i], 1e-4);
  }
}

TEST_F(TextScoring, CachesGiveTheSameBytesAndSaveTheWork) {
  const TemporaryDirectory folder;
  const ScoringOptions options{.cache_folder = folder.path(), .batch_rows = 64};
  const Windows windows = windows_of({32, true, 0}, 32 * 5);
  const auto run = [&] {
    ReferenceStates reference(teacher_, teacher_name_, windows, options);
    reference.compute(silent_);
    return score_against(student_, student_name_, reference, windows, options, silent_);
  };
  const TokenScores first = run();
  // A cached run does not touch the model: damage it and nothing changes.
  teacher_.exchange({0, Module::kDown}, student_.exchange({0, Module::kDown}, nullptr));
  const TokenScores second = run();
  EXPECT_EQ(first.nll, second.nll);
  EXPECT_EQ(first.kl, second.kl);
  EXPECT_EQ(first.best, second.best);
}

TEST_F(TextScoring, MemoryAndDiskGiveTheSameBytes) {
  const TemporaryDirectory folder;
  const Windows windows = windows_of({32, false, 0}, 32 * 5);
  const auto run = [&](const ScoringOptions& options, Compute compute) {
    Decoder teacher(*backend_, dense_, compute);
    const ScoredModel name{"reference", "teacher", compute};
    ReferenceStates reference(teacher, name, windows, options);
    reference.compute(silent_);
    return score_against(student_, student_name_, reference, windows, options, silent_).kl;
  };
  for (const Compute compute : {Compute::kF32, Compute::kBF16})
    EXPECT_EQ(run({}, compute), run({.cache_folder = folder.path(), .batch_rows = 2048}, compute));
}

// Stops after some windows, as Ctrl-C does.
class StoppingProgress final : public Progress {
 public:
  explicit StoppingProgress(int64_t windows) : left_(windows) {}
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t steps, std::string_view) override { left_ -= steps; }
  void end() override {}
  [[nodiscard]] bool stop_requested() const override { return left_ <= 0; }

 private:
  int64_t left_;
};

TEST_F(TextScoring, ResumesWhereItWasStopped) {
  const TemporaryDirectory folder;
  const ScoringOptions options{.cache_folder = folder.path(), .batch_rows = 128};
  const Windows windows = windows_of({128, false, 0}, 128 * 150);  // several pieces
  const auto run = [&](Progress& progress) {
    ReferenceStates reference(teacher_, teacher_name_, windows, options);
    reference.compute(progress);
    return score_against(student_, student_name_, reference, windows, options, progress);
  };
  int interruptions = 0;
  TokenScores resumed;
  for (;;) {
    StoppingProgress progress(100 + 60 * interruptions);
    try {
      resumed = run(progress);
      break;
    } catch (const Failure& failure) {
      ASSERT_EQ(failure.error().code, ErrorCode::kInterrupted);
      ASSERT_LT(++interruptions, 10);
    }
  }
  EXPECT_GE(interruptions, 3);
  ReferenceStates reference(teacher_, teacher_name_, windows, {});
  reference.compute(silent_);
  const TokenScores whole = score_against(student_, student_name_, reference, windows, {}, silent_);
  EXPECT_EQ(resumed.nll, whole.nll);
  EXPECT_EQ(resumed.kl, whole.kl);
}

TEST_F(TextScoring, SaysWhenAModelIsDamaged) {
  DenseModel broken = test::tiny_model();
  broken.final_norm.as<float>()[0] = std::nanf("");
  Decoder decoder(*backend_, broken, Compute::kF32);
  const Windows windows = windows_of({16, false, 0}, 32);
  try {
    score_alone(decoder, {"broken.spear", "", Compute::kF32}, windows, {}, silent_);
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kBadFile);
    EXPECT_NE(failure.error().message.find("broken.spear"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
