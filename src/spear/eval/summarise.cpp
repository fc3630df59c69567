#include <cmath>
#include <limits>

#include "spear/base/check.h"
#include "spear/eval/eval_result.h"

namespace spear {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<float> agreement(const TokenScores& a, const TokenScores& b) {
  std::vector<float> same(a.best.size());
  for (size_t i = 0; i < same.size(); ++i) same[i] = a.best[i] == b.best[i] ? 1.0f : 0.0f;
  return same;
}

Divergence divergence_of(const TokenScores& scores, const TokenScores& reference,
                         int64_t per_window, uint64_t seed) {
  return {.kl = bootstrap_mean(scores.kl, per_window, seed),
          .kl_median = quantile(scores.kl, 0.5),
          .kl_p99 = quantile(scores.kl, 0.99),
          .top1_agreement = bootstrap_mean(agreement(scores, reference), per_window, seed),
          .log_ratio = bootstrap_difference(scores.nll, reference.nll, per_window, seed),
          .histogram = histogram_of(scores.kl)};
}

// Of a share p among n.
double share_standard_error(double p, int64_t n) {
  return n > 1 ? std::sqrt(p * (1 - p) / static_cast<double>(n - 1)) : kNaN;
}

bool answered_right(const TaskSet& set, size_t i, const TaskScores& scores, bool normalised) {
  if (set.kind == TaskKind::kLastWord) return scores[i].front().greedy;
  return chosen_answer(set.questions[i], scores[i], normalised) == set.questions[i].answer;
}

bool same_answer(const TaskSet& set, size_t i, const TaskScores& a, const TaskScores& b) {
  if (set.kind == TaskKind::kLastWord) return a[i].front().greedy == b[i].front().greedy;
  return chosen_answer(set.questions[i], a[i], false) ==
         chosen_answer(set.questions[i], b[i], false);
}

}  // namespace

TextResult summarise(const Windows& windows, const TokenScores& scores,
                     const TokenScores* reference, uint64_t seed) {
  const int64_t per_window = windows.protocol.predictions();
  const Interval nll = bootstrap_mean(scores.nll, per_window, seed);
  TextResult result{
      .name = windows.name,
      .text_hash = windows.content_hash,
      .tokens = windows.text_tokens,
      .windows = windows.count,
      .scored = windows.count * per_window,
      .perplexity = std::exp(nll.mean),
      .perplexity_stderr = std::exp(nll.mean) * nll.standard_error,
      .perplexity_stderr_tokens = std::exp(nll.mean) * token_standard_error(scores.nll),
      .divergence = {}};
  if (reference != nullptr) result.divergence = divergence_of(scores, *reference, per_window, seed);
  return result;
}

TaskResult summarise(const TaskSet& set, const TaskScores& scores, const TaskScores* reference) {
  expects(scores.size() == set.questions.size() && !scores.empty());
  int64_t right = 0;
  int64_t right_norm = 0;
  int64_t changed = 0;
  double log_likelihood = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    right += answered_right(set, i, scores, false) ? 1 : 0;
    right_norm += answered_right(set, i, scores, true) ? 1 : 0;
    log_likelihood += scores[i].front().log_likelihood;
    if (reference != nullptr) changed += same_answer(set, i, scores, *reference) ? 0 : 1;
  }
  const auto count = static_cast<int64_t>(scores.size());
  const auto n = static_cast<double>(count);
  TaskResult result;
  result.name = set.name;
  result.kind = set.kind;
  result.n = count;
  result.accuracy = static_cast<double>(right) / n;
  result.accuracy_stderr = share_standard_error(result.accuracy, count);
  if (set.kind == TaskKind::kChoices) {
    result.accuracy_norm = static_cast<double>(right_norm) / n;
    result.accuracy_norm_stderr = share_standard_error(*result.accuracy_norm, count);
  } else {
    result.perplexity = std::exp(-log_likelihood / n);
  }
  if (reference != nullptr) result.answers_changed = static_cast<double>(changed) / n;
  return result;
}

}  // namespace spear
