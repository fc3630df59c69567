#include "spear/engine/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/engine/row_math.h"

namespace spear {
namespace {

using Probabilities = std::vector<double>;

constexpr size_t kVocab = 40;

// Logits of order one with ties among the unlikely ones.
std::vector<float> some_logits(uint64_t seed) {
  Rng rng(seed);
  std::vector<float> logits;
  for (size_t i = 0; i < kVocab; ++i)
    logits.push_back(i % 7 == 3 ? -1.5f : 2 * static_cast<float>(rng.normal()));
  return logits;
}

Probabilities softmax(const std::vector<float>& logits, double temperature) {
  const double most = *std::max_element(logits.begin(), logits.end());
  Probabilities p;
  for (const float logit : logits)
    p.push_back(std::exp((static_cast<double>(logit) - most) / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

void normalize(Probabilities& p) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
}

// Keeps indices in the order of `before` until their mass reaches `share`: a full sort.
void keep_first(Probabilities& p, double share, const std::function<double(size_t)>& key) {
  std::vector<size_t> order;
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i] > 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  double mass = 0;
  Probabilities kept(p.size(), 0);
  for (const size_t i : order) {
    if (mass >= share) break;
    kept[i] = p[i];
    mass += p[i];
  }
  p = kept;
  normalize(p);
}

// The stated distribution, by sorting everything.
Probabilities stated(const std::vector<float>& logits, const SamplingParams& params) {
  Probabilities p = softmax(logits, params.temperature);
  if (params.top_k > 0) {
    const Probabilities whole = p;
    std::vector<size_t> order(p.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return whole[a] > whole[b]; });
    for (size_t i = static_cast<size_t>(params.top_k); i < order.size(); ++i) p[order[i]] = 0;
    normalize(p);
  }
  if (params.typical_p < 1) {
    double entropy = 0;
    for (const double value : p)
      if (value > 0) entropy -= value * std::log(value);
    const Probabilities before = p;
    keep_first(p, params.typical_p,
               [&](size_t i) { return std::abs(-std::log(before[i]) - entropy); });
  }
  if (params.top_p < 1) {
    const Probabilities before = p;
    keep_first(p, params.top_p, [&](size_t i) { return -before[i]; });
  }
  const double most = *std::max_element(p.begin(), p.end());
  for (double& value : p)
    if (value < params.min_p * most) value = 0;
  normalize(p);
  return p;
}

// Draws and compares by Pearson's chi-square. The bound is the 99.99 % point (Wilson and Hilferty);
// seeds are fixed, so a pass stays a pass.
void expect_distribution(const SamplingParams& params, const std::vector<float>& logits,
                         uint64_t seed) {
  constexpr int kDraws = 20000;
  const Probabilities expected = stated(logits, params);
  TokenSampler sampler(params, seed, 0, {}, 1);
  SamplerWorkspace workspace(static_cast<int64_t>(logits.size()));
  std::vector<int> seen(logits.size(), 0);
  std::vector<float> row;
  for (int i = 0; i < kDraws; ++i) {
    row = logits;
    sampler.adjust(row);
    ++seen[static_cast<size_t>(sampler.choose(row, workspace))];
  }
  double chi = 0, rest_expected = 0, rest_seen = 0;
  int cells = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(seen[i], 0) << "token " << i << " is left out by the filters";
      continue;
    }
    const double mean = expected[i] * kDraws;
    if (mean < 5) {  // rare ones count together
      rest_expected += mean;
      rest_seen += seen[i];
      continue;
    }
    chi += (seen[i] - mean) * (seen[i] - mean) / mean;
    ++cells;
  }
  if (rest_expected >= 5) {
    chi += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
    ++cells;
  }
  const double freedom = std::max(cells - 1, 1);
  const double t = 2.0 / (9 * freedom);
  const double bound = freedom * std::pow(1 - t + 3.719 * std::sqrt(t), 3);
  EXPECT_LT(chi, bound) << cells << " cells";
}

TEST(TokenSampler, DrawsTheStatedDistribution) {
  struct Case {
    const char* name;
    std::function<void(SamplingParams&)> set;
  };
  const Case cases[] = {
      {"plain", [](SamplingParams&) {}},
      {"hot", [](SamplingParams& p) { p.temperature = 3; }},
      {"cold", [](SamplingParams& p) { p.temperature = 0.4; }},
      {"top-k", [](SamplingParams& p) { p.top_k = 6; }},
      {"top-p", [](SamplingParams& p) { p.top_p = 0.8; }},
      {"min-p", [](SamplingParams& p) { p.min_p = 0.1; }},
      {"typical", [](SamplingParams& p) { p.typical_p = 0.6; }},
      {"top-k and top-p",
       [](SamplingParams& p) {
         p.top_k = 10;
         p.top_p = 0.7;
       }},
      {"top-p and min-p",
       [](SamplingParams& p) {
         p.top_p = 0.95;
         p.min_p = 0.15;
       }},
      {"everything",
       [](SamplingParams& p) {
         p.temperature = 1.3;
         p.top_k = 30;
         p.typical_p = 0.9;
         p.top_p = 0.9;
         p.min_p = 0.05;
       }},
  };
  for (const Case& c : cases)
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      SCOPED_TRACE(c.name);
      SamplingParams params;
      c.set(params);
      expect_distribution(params, some_logits(seed), 100 + seed);
    }
}

TEST(TokenSampler, SelectsWhatAFullSortSelectsOverLargeVocabularies) {
  Rng rng(5);
  for (const size_t vocab : {1U, 2U, 3U, 1000U, 5000U}) {
    std::vector<float> logits;
    for (size_t i = 0; i < vocab; ++i)
      logits.push_back(std::round(30 * static_cast<float>(rng.normal())) / 10);
    for (const double top_p : {0.01, 0.5, 0.9, 0.999})
      for (const int32_t top_k : {0, 1, 20, 700}) {
        SamplingParams params;
        params.top_p = top_p;
        params.top_k = top_k;
        const Probabilities expected = stated(logits, params);
        TokenSampler sampler(params, 3, 0, {}, 1);
        SamplerWorkspace workspace(static_cast<int64_t>(vocab));
        std::vector<float> row;
        for (int i = 0; i < 200; ++i) {
          row = logits;
          EXPECT_GT(expected[static_cast<size_t>(sampler.choose(row, workspace))], 0)
              << vocab << " tokens, top-p " << top_p << ", top-k " << top_k;
        }
      }
  }
}

TEST(TokenSampler, IsGreedyAtTemperatureZeroAndTakesTheFirstOfEquals) {
  SamplingParams params;
  params.temperature = 0;
  TokenSampler sampler(params, 0, 0, {}, 1);
  SamplerWorkspace workspace(5);
  std::vector<float> row = {1, 4, std::nanf(""), 4, -2};
  EXPECT_EQ(sampler.choose(row, workspace), 1);
  params.temperature = 1e-64;
  TokenSampler coldest(params, 0, 0, {}, 1);
  row = {1, 4, 3, 4, -2};
  EXPECT_EQ(coldest.choose(row, workspace), 1);
  row = {std::nanf(""), std::nanf("")};
  EXPECT_EQ(sampler.choose(row, workspace), -1);
  row = {-std::numeric_limits<float>::infinity(), -3};
  EXPECT_EQ(sampler.choose(row, workspace), 1);
}

TEST(TokenSampler, PenaltiesFollowTheirDefinitions) {
  SamplingParams params;
  params.repetition_penalty = 2;
  params.presence_penalty = 0.5;
  params.frequency_penalty = 0.25;
  params.logit_bias = {{4, -100.0f}};
  const std::vector<int32_t> prompt = {0, 1, 0};
  TokenSampler sampler(params, 0, 0, prompt, 10);
  for (const int32_t token : {1, 2, 2, 2}) sampler.accept(token);
  std::vector<float> row = {3, -3, 6, 1, 1};
  sampler.adjust(row);
  EXPECT_FLOAT_EQ(row[0], 1.5f) << "in the prompt only: repetition";
  EXPECT_FLOAT_EQ(row[1], -6 - 0.5f - 0.25f) << "in both, once in the answer";
  EXPECT_FLOAT_EQ(row[2], 3 - 0.5f - 0.75f) << "three times in the answer";
  EXPECT_FLOAT_EQ(row[3], 1);
  EXPECT_FLOAT_EQ(row[4], -99);
}

TEST(TokenSampler, TheSameSeedAndChoiceDrawTheSame) {
  const auto draws = [](uint64_t seed, int32_t choice) {
    TokenSampler sampler({}, seed, choice, {}, 1);
    SamplerWorkspace workspace(kVocab);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) {
      std::vector<float> row = some_logits(9);
      tokens.push_back(sampler.choose(row, workspace));
    }
    return tokens;
  };
  EXPECT_EQ(draws(1, 0), draws(1, 0));
  EXPECT_NE(draws(1, 0), draws(2, 0));
  EXPECT_NE(draws(1, 0), draws(1, 1));
}

TEST(RowMath, ExponentialsAreWithinTheirStatedError) {
  std::vector<float> row;
  for (int i = 0; i < 100003; ++i) row.push_back(-static_cast<float>(i) * 0.9e-3f);
  std::vector<float> values = row;
  const double sum = exponentials(values, 0, 1);
  double expected = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double exact = std::exp(static_cast<double>(row[i]));
    expected += row[i] > -87 ? exact : 0;
    if (row[i] > -87) {
      EXPECT_NEAR(values[i], exact, 4e-7 * exact) << row[i];
    } else {
      EXPECT_EQ(values[i], 0.0f);
    }
  }
  EXPECT_NEAR(sum, expected, 1e-6 * expected);
  EXPECT_EQ(sum_of_exponentials(row, 0, 1), sum);
}

TEST(RowMath, LogProbabilitiesAreThoseOfASoftmax) {
  const std::vector<float> logits = some_logits(4);
  const Probabilities p = softmax(logits, 1);
  std::vector<TokenLogprob> top;
  for (const int32_t count : {0, 1, 5, 100}) {
    EXPECT_NEAR(log_probabilities(logits, 3, count, top), std::log(p[3]), 1e-5);
    ASSERT_EQ(top.size(), std::min<size_t>(static_cast<size_t>(count), kVocab));
    for (size_t i = 0; i < top.size(); ++i) {
      EXPECT_NEAR(top[i].logprob, std::log(p[static_cast<size_t>(top[i].token)]), 1e-5);
      if (i > 0) {
        EXPECT_GE(top[i - 1].logprob, top[i].logprob);
      }
    }
  }
}

}  // namespace
}  // namespace spear
