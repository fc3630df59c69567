#include "spear/report/samples.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "eval/naive.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

// Ids as numbers: what a tokenizer does to them does not matter here.
std::string as_numbers(std::span<const int32_t> ids) {
  std::string text;
  for (const int32_t id : ids) text += std::to_string(id) + " ";
  return text;
}

class Samples : public ::testing::Test {
 protected:
  Samples() {
    settings_.decode = as_numbers;
    settings_.most_tokens = 12;
    settings_.sampling.temperature = 0;
    settings_.sampling.top_p = 1;
    settings_.seed = 5;
  }
  std::vector<std::string> run(Decoder& decoder) {
    return continue_prompts(decoder, prompts_, settings_, silent_);
  }

  test::TestBackend backend_;
  DenseModel dense_ = test::tiny_model();
  Decoder decoder_{*backend_, dense_, Compute::kF32};
  std::vector<SamplePrompt> prompts_ = {{"one", {1, 2, 3}}, {"two", {7}}};
  SampleSettings settings_;
  SilentProgress silent_;
};

TEST_F(Samples, AreThoseOfTheNaiveLoop) {
  std::vector<int32_t> all = prompts_[0].tokens;
  for (int i = 0; i < 12; ++i)
    all.push_back(test::best_of(test::log_probabilities(decoder_, all).back()));
  EXPECT_EQ(run(decoder_)[0], as_numbers(std::span(all).subspan(3)));
}

TEST_F(Samples, DependOnTheSeedAlone) {
  settings_.sampling.temperature = 1;
  const auto first = run(decoder_);
  EXPECT_EQ(run(decoder_), first);
  settings_.seed = 6;
  EXPECT_NE(run(decoder_), first);
}

TEST_F(Samples, EndBeforeAStopToken) {
  std::vector<int32_t> all = prompts_[0].tokens;
  for (int i = 0; i < 3; ++i)
    all.push_back(test::best_of(test::log_probabilities(decoder_, all).back()));
  settings_.stop_ids = {all[5]};
  const auto first = std::find(all.begin() + 3, all.end(), all[5]);
  EXPECT_EQ(run(decoder_)[0],
            as_numbers(std::span(all).subspan(3, static_cast<size_t>(first - all.begin() - 3))));
}

TEST_F(Samples, RefusePromptsBeyondTheContext) {
  settings_.most_tokens = 126;
  try {
    run(decoder_);
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kUsage);
    EXPECT_NE(failure.error().message.find("at most 128"), std::string::npos);
  }
}

TEST_F(Samples, StandSideBySide) {
  const std::vector<std::string> models = {"reference", "plain W4"};
  const std::vector<std::vector<std::string>> answers = {{"a", "b"}, {"c", "d"}};
  const auto samples = to_samples(prompts_, 5, models, answers);
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[1].prompt, "two");
  EXPECT_EQ(samples[1].seed, 6u);
  EXPECT_EQ(samples[1].answers[1].model, "plain W4");
  EXPECT_EQ(samples[1].answers[1].text, "d");
}

}  // namespace
}  // namespace spear
