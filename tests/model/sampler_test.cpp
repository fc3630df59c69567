#include "spear/model/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <gtest/gtest.h>

namespace spear {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

// How often each token is drawn.
std::map<int32_t, double> shares(SamplingOptions options, const std::vector<double>& probabilities,
                                 int draws = 20000) {
  Sampler sampler(options);
  std::map<int32_t, double> share;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> logits = logs(probabilities);
    share[sampler.pick(logits, {})] += 1.0 / draws;
  }
  return share;
}

// Four standard deviations of a share over 20,000 draws are at most 4 * sqrt(.25 / 20000) = 0.0142.
constexpr double kDrawError = 0.0142;

SamplingOptions plain() {
  SamplingOptions options;
  options.temperature = 1;
  options.top_p = 1;
  return options;
}

TEST(Sampler, IsGreedyAtTemperatureZero) {
  SamplingOptions options;
  options.temperature = 0;
  Sampler sampler(options);
  std::vector<float> logits = {1, 5, 3, 5};
  EXPECT_EQ(sampler.pick(logits, {}), 1) << "the first of equals";
}

TEST(Sampler, DrawsByProbability) {
  const auto share = shares(plain(), {0.5, 0.3, 0.2});
  EXPECT_NEAR(share.at(0), 0.5, kDrawError);
  EXPECT_NEAR(share.at(1), 0.3, kDrawError);
  EXPECT_NEAR(share.at(2), 0.2, kDrawError);
}

TEST(Sampler, SharpensWithTemperature) {
  SamplingOptions options = plain();
  options.temperature = 0.5;  // squares the odds
  const auto share = shares(options, {0.5, 0.3, 0.2});
  EXPECT_NEAR(share.at(0), 0.25 / 0.38, kDrawError);
  EXPECT_NEAR(share.at(2), 0.04 / 0.38, kDrawError);
}

TEST(Sampler, KeepsTheKLikeliest) {
  SamplingOptions options = plain();
  options.top_k = 2;
  const auto share = shares(options, {0.2, 0.5, 0.3});
  EXPECT_EQ(share.size(), 2U);
  EXPECT_NEAR(share.at(1), 0.625, kDrawError);
}

TEST(Sampler, KeepsTheSmallestSetThatReachesP) {
  SamplingOptions options = plain();
  options.top_p = 0.75;
  EXPECT_EQ(shares(options, {0.1, 0.5, 0.3, 0.1}).size(), 2U);
  options.top_p = 0.85;
  EXPECT_EQ(shares(options, {0.1, 0.5, 0.3, 0.1}).size(), 3U);
  options.top_p = 1e-9;
  EXPECT_EQ(shares(options, {0.1, 0.5, 0.3, 0.1}).size(), 1U);
}

TEST(Sampler, AppliesTopPToWhatTopKLeft) {
  SamplingOptions options = plain();
  options.top_k = 3;     // leaves .4, .3, .2: shares of .444, .333, .222
  options.top_p = 0.75;  // the first two have .777 of it, but only .7 of everything
  EXPECT_EQ(shares(options, {0.4, 0.3, 0.2, 0.1}).size(), 2U);
}

TEST(Sampler, DropsWhatIsFarBelowTheLikeliest) {
  SamplingOptions options = plain();
  options.min_p = 0.5;
  const auto share = shares(options, {0.5, 0.26, 0.24});
  EXPECT_EQ(share.size(), 2U);
  EXPECT_EQ(share.count(2), 0U);
}

TEST(Sampler, PenalizesEachSeenTokenOnce) {
  SamplingOptions options;
  options.temperature = 0;
  options.repetition_penalty = 2;
  Sampler sampler(options);
  std::vector<float> logits = {4, 3, -1};
  const std::vector<int32_t> seen = {0, 0, 2};
  EXPECT_EQ(sampler.pick(logits, seen), 1);
  EXPECT_FLOAT_EQ(logits[0], 2);
  EXPECT_FLOAT_EQ(logits[2], -2);
}

TEST(Sampler, RepeatsItselfWithTheSameSeed) {
  SamplingOptions options = plain();
  for (const uint64_t seed : {1U, 2U}) {
    options.seed = seed;
    Sampler a(options);
    Sampler b(options);
    for (int i = 0; i < 50; ++i) {
      std::vector<float> x = logs({0.4, 0.3, 0.2, 0.1});
      std::vector<float> y = x;
      EXPECT_EQ(a.pick(x, {}), b.pick(y, {}));
    }
  }
}

TEST(Sampler, IgnoresLogitsThatAreNotFinite) {
  Sampler sampler(plain());
  for (int i = 0; i < 100; ++i) {
    std::vector<float> logits = {-kInfinity, 1, std::nanf(""), 1};
    EXPECT_EQ(sampler.pick(logits, {}) % 2, 1);
  }
  std::vector<float> none = {std::nanf(""), kInfinity};
  EXPECT_THROW(sampler.pick(none, {}), Failure);
}

TEST(SamplingOptions, AreChecked) {
  EXPECT_TRUE(validate(SamplingOptions{}).has_value());
  const auto refused = [](auto change) {
    SamplingOptions options;
    change(options);
    const auto result = validate(options);
    return !result.has_value() && result.error().code == ErrorCode::kUsage;
  };
  EXPECT_TRUE(refused([](SamplingOptions& o) { o.temperature = -1; }));
  EXPECT_TRUE(refused([](SamplingOptions& o) { o.temperature = std::nan(""); }));
  EXPECT_TRUE(refused([](SamplingOptions& o) { o.top_k = -1; }));
  EXPECT_TRUE(refused([](SamplingOptions& o) { o.top_p = 0; }));
  EXPECT_TRUE(refused([](SamplingOptions& o) { o.min_p = 1; }));
  EXPECT_TRUE(refused([](SamplingOptions& o) { o.repetition_penalty = 0; }));
}

}  // namespace
}  // namespace spear
