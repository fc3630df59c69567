#include "spear/eval/continuation_scorer.h"

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "eval/naive.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using Group = ContinuationScorer::Group;

std::vector<int32_t> random_tokens(Rng& rng, int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(rng.below(48)));
  return tokens;
}

// Alternatives with a shared beginning of random length (perhaps none), random ends, and random
// places from which they are scored.
Group random_group(Rng& rng) {
  const std::vector<int32_t> shared = random_tokens(rng, rng.below(20));
  Group group;
  const int64_t members = 1 + rng.below(5);
  for (int64_t j = 0; j < members; ++j) {
    ScoredTokens member{shared, 0};
    const auto own = random_tokens(rng, 2 + rng.below(j == 0 ? 2 : 30));
    member.tokens.insert(member.tokens.end(), own.begin(), own.end());
    member.scored_from = 1 + rng.below(static_cast<uint32_t>(member.tokens.size() - 1));
    group.push_back(std::move(member));
  }
  return group;
}

ContinuationScore naive_score(Decoder& decoder, const ScoredTokens& member) {
  const auto rows = test::log_probabilities(decoder, member.tokens);
  ContinuationScore score;
  for (auto i = static_cast<size_t>(member.scored_from); i < member.tokens.size(); ++i) {
    score.log_likelihood += rows[i - 1][static_cast<size_t>(member.tokens[i])];
    score.greedy = score.greedy && test::best_of(rows[i - 1]) == member.tokens[i];
  }
  return score;
}

class Continuations : public ::testing::Test {
 protected:
  test::TestBackend backend_;
  DenseModel model_ = test::tiny_model();
  Decoder decoder_{*backend_, model_, Compute::kF32};
  SilentProgress silent_;
};

TEST_F(Continuations, EqualOneSequenceAtATime) {
  Rng rng(11);
  std::vector<Group> groups;
  for (int i = 0; i < 60; ++i) groups.push_back(random_group(rng));
  for (const int64_t batch_rows : {1, 64, 300, 4096}) {
    ContinuationScorer scorer(decoder_, batch_rows);
    const auto scores = scorer.score(groups, silent_);
    ASSERT_EQ(scores.size(), groups.size());
    for (size_t i = 0; i < groups.size(); ++i) {
      ASSERT_EQ(scores[i].size(), groups[i].size());
      for (size_t j = 0; j < groups[i].size(); ++j) {
        const ContinuationScore naive = naive_score(decoder_, groups[i][j]);
        const auto terms = static_cast<double>(groups[i][j].tokens.size());
        ASSERT_NEAR(scores[i][j].log_likelihood, naive.log_likelihood, 1e-4 * terms)
            << "group " << i << " member " << j << " rows " << batch_rows;
        ASSERT_EQ(scores[i][j].greedy, naive.greedy) << "group " << i << " member " << j;
      }
    }
  }
}

TEST_F(Continuations, HoldWhereMembersAreEqualOrOneToken) {
  const Group same = {{{5, 6, 7}, 2}, {{5, 6, 7}, 2}};
  const Group one = {{{5, 6}, 1}, {{5, 9}, 1}, {{8, 9}, 1}};
  const std::vector<Group> groups = {same, one};
  const auto scores = ContinuationScorer(decoder_, 64).score(groups, silent_);
  EXPECT_EQ(scores[0][0].log_likelihood, scores[0][1].log_likelihood);
  for (size_t j = 0; j < one.size(); ++j)
    EXPECT_NEAR(scores[1][j].log_likelihood, naive_score(decoder_, one[j]).log_likelihood, 1e-4);
}

TEST_F(Continuations, FindTheGreedyOne) {
  std::vector<int32_t> tokens = {1, 2, 3};
  for (int i = 0; i < 4; ++i)
    tokens.push_back(test::best_of(test::log_probabilities(decoder_, tokens).back()));
  std::vector<int32_t> other = tokens;
  other.back() = (other.back() + 1) % 48;
  const std::vector<Group> groups = {{{tokens, 3}, {other, 3}}};
  const auto scores = ContinuationScorer(decoder_, 64).score(groups, silent_);
  EXPECT_TRUE(scores[0][0].greedy);
  EXPECT_FALSE(scores[0][1].greedy);
}

}  // namespace
}  // namespace spear
