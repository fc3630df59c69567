#include "spear/model/calibration.h"

#include <cmath>
#include <map>
#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/thread_pool.h"

#include "model/naive_decoder.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

class CalibrationTest : public ::testing::Test {
 protected:
  TokenSequences sample(SampleOptions options) {
    Decoder decoder(*backend_, model_, Compute::kF32);
    SilentProgress silent;
    return sample_self(decoder, options, pool_, silent);
  }
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  DenseModel model_ = test::tiny_model();
};

TEST_F(CalibrationTest, SamplesAreTheSameForEveryBatchSize) {
  const TokenSequences one = sample({.count = 7, .length = 12, .seed = 5, .batch = 1});
  const TokenSequences four = sample({.count = 7, .length = 12, .seed = 5, .batch = 4});
  EXPECT_EQ(one.ids, four.ids);
  EXPECT_NE(one.ids, sample({.count = 7, .length = 12, .seed = 6, .batch = 4}).ids);
  for (int64_t i = 0; i < 7; ++i) EXPECT_EQ(one.row(i)[0], model_.config.bos_token_id);
}

// The second token of many sequences is drawn from one known distribution: its frequencies must be
// that one's.
TEST_F(CalibrationTest, DrawsFromTheModelsOwnDistribution) {
  constexpr int64_t kDraws = 4000;
  const TokenSequences drawn = sample({.count = kDraws, .length = 2, .seed = 9, .batch = 500});
  const std::vector<int32_t> start = {model_.config.bos_token_id};
  const std::vector<double> logits =
      test::naive_logits(model_, test::naive_hidden(model_, start).back());
  double sum = 0;
  for (const double l : logits) sum += std::exp(l);
  double chi_square = 0;
  std::map<int32_t, int64_t> count;
  for (int64_t i = 0; i < kDraws; ++i) ++count[drawn.row(i)[1]];
  double rare_expected = 0;
  double rare_found = 0;
  int64_t bins = 0;
  for (size_t v = 0; v < logits.size(); ++v) {
    const double expected = kDraws * std::exp(logits[v]) / sum;
    const auto found = static_cast<double>(count[static_cast<int32_t>(v)]);
    if (expected < 5) {
      rare_expected += expected;
      rare_found += found;
      continue;
    }
    chi_square += (found - expected) * (found - expected) / expected;
    ++bins;
  }
  if (rare_expected > 0)
    chi_square += (rare_found - rare_expected) * (rare_found - rare_expected) / rare_expected;
  // Mean `bins`, deviation sqrt(2 bins): six deviations above it is one failure in 10^8 seeds.
  EXPECT_LT(chi_square, static_cast<double>(bins) + 6 * std::sqrt(2.0 * static_cast<double>(bins)));
}

TEST_F(CalibrationTest, StopsWhenAsked) {
  class Stopping final : public Progress {
    void begin(std::string_view, int64_t) override {}
    void advance(int64_t, std::string_view) override { ++steps_; }
    void end() override {}
    [[nodiscard]] bool stop_requested() const override { return steps_ > 2; }
    int steps_ = 0;
  };
  Decoder decoder(*backend_, model_, Compute::kF32);
  Stopping progress;
  EXPECT_THROW(sample_self(decoder, {.count = 2, .length = 50}, pool_, progress), Failure);
}

TEST(TokenSequences, CutsChoosesAndJoins) {
  std::vector<int32_t> ids(25);
  std::iota(ids.begin(), ids.end(), 0);
  const TokenSequences cut = value_or_throw(cut_into_sequences(ids, 4, "text"));
  EXPECT_EQ(cut.count, 6);
  EXPECT_EQ(cut.row(5)[3], 23);
  const TokenSequences chosen = choose_sequences(cut, 4, 1);
  EXPECT_EQ(chosen.count, 4);
  EXPECT_EQ(choose_sequences(cut, 4, 1).ids, chosen.ids);
  EXPECT_EQ(choose_sequences(cut, 100, 1).count, 6);
  std::map<int32_t, int> firsts;
  for (int64_t i = 0; i < 4; ++i) ++firsts[chosen.row(i)[0]];
  EXPECT_EQ(firsts.size(), 4u);
  EXPECT_EQ(concatenate(cut, chosen).count, 10);
  EXPECT_EQ(concatenate({}, chosen).ids, chosen.ids);
}

TEST(TokenSequences, TooLittleTextIsOneSentence) {
  const std::vector<int32_t> ids = {1};
  const Result<TokenSequences> cut = cut_into_sequences(ids, 256, "notes.txt");
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(
      cut.error().message,
      "notes.txt: 1 tokens of text, at least 256 are needed for one sequence; give more text");
}

TEST(TokenSequences, SurviveTheirFileAndRefuseADamagedOne) {
  const test::TemporaryDirectory folder;
  const auto path = folder.path() / "tokens";
  const TokenSequences sequences{2, 3, {1, 2, 3, 4, 5, 6}};
  save_sequences(path, sequences);
  const TokenSequences back = value_or_throw(load_sequences(path, 10));
  EXPECT_EQ(back.ids, sequences.ids);
  EXPECT_EQ(back.hash(), sequences.hash());
  EXPECT_FALSE(load_sequences(path, 6).has_value());  // token 6 is outside
  std::string bytes = value_or_throw(read_text_file(path));
  write_file_atomically(path, bytes.substr(0, bytes.size() - 4));
  EXPECT_FALSE(load_sequences(path, 10).has_value());
  bytes[8] = 120;
  write_file_atomically(path, bytes);
  EXPECT_FALSE(load_sequences(path, 10).has_value());
  write_file_atomically(path, "SPEAR");
  EXPECT_FALSE(load_sequences(path, 10).has_value());
}

}  // namespace
}  // namespace spear
