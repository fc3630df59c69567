#include "spear/compensate/trainer.h"

#include <algorithm>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "spear/base/error.h"

#include "support/temporary_directory.h"
#include "tiny_training.h"

namespace spear {
namespace {

using test::TinyTraining;

class StopAfter final : public Progress {
 public:
  explicit StopAfter(int steps) : left_(steps) {}
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t steps, std::string_view) override { left_ -= static_cast<int>(steps); }
  void end() override {}
  [[nodiscard]] bool stop_requested() const override { return left_ <= 0; }

 private:
  int left_;
};

class Trainer : public ::testing::Test {
 protected:
  TrainingResult run(TinyTraining& tiny, const TrainerOptions& options,
                     const std::filesystem::path& checkpoint = {}) {
    const auto pass = tiny.pass();
    return train(tiny.student, tiny.data(), *pass, options, checkpoint, silent_);
  }
  test::TemporaryDirectory folder_;
  SilentProgress silent_;
};

TEST_F(Trainer, LowersTheHeldOutKl) {
  TinyTraining tiny(folder_.path());
  TrainerOptions options = TinyTraining::options();
  options.steps = 60;
  const TrainingResult result = run(tiny, options);
  EXPECT_LT(result.held_out_after, 0.8 * result.held_out_before);
  EXPECT_EQ(result.curve.size(), 60u);
  EXPECT_LT(result.curve.back().loss, result.curve.front().loss);
  // The values are stored exactly, and give the KL that is reported.
  EXPECT_EQ(
      rounded(tiny.student, result.values, {8, options.rates.kinds() | kFactorKinds | kGateKinds}),
      result.values);
  const auto pass = tiny.pass();
  EXPECT_EQ(
      mean_kl(*pass, result.values, tiny.data(), split_held_out(20, options).held_out, 24, 1.0f),
      result.held_out_after);
}

TEST_F(Trainer, ResumedAfterAnInterruptionEndsWithTheSameBytes) {
  TinyTraining tiny(folder_.path());
  const TrainingResult whole = run(tiny, TinyTraining::options());
  for (const int stop : {1, 5, 8}) {
    const auto checkpoint = folder_ / ("run" + std::to_string(stop));
    const auto pass = tiny.pass();
    StopAfter stopping(stop);
    try {
      train(tiny.student, tiny.data(), *pass, TinyTraining::options(), checkpoint, stopping);
      FAIL() << "was not stopped";
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.error().code, ErrorCode::kInterrupted);
      EXPECT_NE(failure.error().message.find("after " + std::to_string(stop) + " of 12"),
                std::string::npos);
    }
    const TrainingResult resumed = run(tiny, TinyTraining::options(), checkpoint);
    EXPECT_EQ(resumed.values, whole.values);
    EXPECT_EQ(resumed.held_out_after, whole.held_out_after);
    ASSERT_EQ(resumed.curve.size(), whole.curve.size());
    for (size_t i = 0; i < whole.curve.size(); ++i)
      EXPECT_EQ(resumed.curve[i].loss, whole.curve[i].loss);
  }
}

TEST_F(Trainer, ADamagedOrForeignCheckpointIsNotUsed) {
  TinyTraining tiny(folder_.path());
  const auto checkpoint = folder_ / "state";
  const TrainingResult whole = run(tiny, TinyTraining::options(), checkpoint);
  std::string bytes;
  {
    std::ifstream file(checkpoint, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  folder_.file("state", bytes);
  EXPECT_EQ(run(tiny, TinyTraining::options(), checkpoint).values, whole.values);
  TrainerOptions other = TinyTraining::options();
  other.rates.scale *= 2;
  EXPECT_EQ(run(tiny, other, checkpoint).values, run(tiny, other).values);
}

TEST_F(Trainer, MovesOnlyWhatHasARate) {
  TinyTraining tiny(folder_.path());
  TrainerOptions options = TinyTraining::options();
  options.rates = {.gate = 1e-3f};
  options.keep_best = false;
  const TrainingResult result = run(tiny, options);
  const std::vector<float> start =
      rounded(tiny.student, tiny.student.start, {8, kFactorKinds | kGateKinds});
  for (const ParameterSpan& span : tiny.student.spans) {
    const auto at = static_cast<size_t>(span.offset);
    const bool moved =
        !std::equal(start.begin() + span.offset, start.begin() + span.offset + span.count(),
                    result.values.begin() + span.offset);
    EXPECT_EQ(moved, (bit(span.kind) & kGateKinds) != 0) << span.name << " " << at;
  }
}

TEST_F(Trainer, HoldsOutSequencesThatNoBatchContains) {
  const TrainerOptions options = TinyTraining::options();
  const HeldOutSplit split = split_held_out(20, options);
  EXPECT_EQ(split.held_out.size(), 4u);
  std::multiset<int64_t> seen;
  for (int64_t step = 0; step < 8; ++step)
    for (const int64_t i : batch_of_step(split.training, step, options)) {
      EXPECT_EQ(std::count(split.held_out.begin(), split.held_out.end(), i), 0);
      seen.insert(i);
    }
  for (const int64_t i : split.training)
    EXPECT_EQ(seen.count(i), 2u) << "two epochs of 16 sequences";
}

TEST_F(Trainer, RefusesTooFewSequencesAndALossThatIsNotFinite) {
  TinyTraining tiny(folder_.path());
  const auto message = [&](const TrainerOptions& options) {
    try {
      run(tiny, options);
    } catch (const Failure& failure) {
      return failure.error().message;
    }
    return std::string("no failure");
  };
  TrainerOptions options = TinyTraining::options();
  options.held_out_share = 1.0;
  options.held_out_most = 20;
  EXPECT_NE(message(options).find("needs at least 2 sequences of 12 tokens, found 20"),
            std::string::npos);
  tiny.student.start[static_cast<size_t>(tiny.student.final_norm)] =
      std::numeric_limits<float>::infinity();
  EXPECT_NE(message(TinyTraining::options()).find("not finite at step 1"), std::string::npos);
}

TEST_F(Trainer, SaysHowMuchMemoryItNeedsAndKeepsLessWhenThereIsLess) {
  const TinyTraining tiny(folder_.path());
  const TrainerOptions options = TinyTraining::options();
  const auto most = choose_pass_options(tiny.student, options, 12, Compute::kF32, size_t{1} << 30);
  EXPECT_TRUE(most.keep_activations && most.keep_matrices);
  const size_t needed = reverse_pass_bytes(tiny.student, 24, most);
  const auto less = choose_pass_options(tiny.student, options, 12, Compute::kF32, needed - 1);
  EXPECT_FALSE(less.keep_activations);
  EXPECT_LT(reverse_pass_bytes(tiny.student, 24, less), needed);
}

TEST_F(Trainer, ReferenceStatesAreGatheredOnce) {
  TinyTraining tiny(folder_.path());
  StopAfter stopping(0);
  Decoder decoder(*tiny.backend, tiny.dense, Compute::kF32);
  const auto again = TeacherStates::gather(decoder, tiny.dense.content_hash, tiny.tokens,
                                           Compute::kF32, folder_.path(), tiny.pool, stopping);
  EXPECT_TRUE(std::ranges::equal(again.row(7), tiny.teacher.row(7)));
  EXPECT_THROW(TeacherStates::gather(decoder, "another model", tiny.tokens, Compute::kF32,
                                     folder_.path(), tiny.pool, stopping),
               Failure);
}

}  // namespace
}  // namespace spear
