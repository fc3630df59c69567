#include "spear/scheduler/learned_costs.h"

#include <algorithm>
#include <cmath>

#include "spear/base/check.h"

namespace spear {
namespace {

// Deviations, all relative. Of a factor from the common pace, and of the pace, when measured:
constexpr double kOwnStart = 0.1, kPaceStart = 0.3;
// How far they wander a step:
constexpr double kOwnDrift = 0.001, kPaceDrift = 0.005;
// Of a step's time from what explains it, and how many deviations of a surprise are believed:
constexpr double kNoise = 0.05, kBelieved = 3;
// Headroom: the quantile, and how fast it follows.
constexpr double kQuantile = 0.99, kHeadroomRate = 0.02;
constexpr double kErrorRate = 0.02;

}  // namespace

LearnedCosts::LearnedCosts(StepCostTable table)
    : table_(std::move(table)),
      count_(2 * table_.rows.size() + 3),
      factors_(count_, 1.0),
      covariance_(count_ * count_, kPaceStart * kPaceStart),
      product_(count_) {
  expects(table_.rows.size() >= 2 && table_.base.size() == table_.rows.size());
  table_.compensators.resize(table_.rows.size(), 0.0);
  for (size_t i = 0; i < count_; ++i) covariance_[i * count_ + i] += kOwnStart * kOwnStart;
}

LearnedCosts::Terms LearnedCosts::terms(const StepShape& s) const {
  const KnotPlace at = table_.place(s.decode_rows + s.prefill_tokens);
  const size_t knots = table_.rows.size();
  const double share = table_.share(s.level);
  return {{{at.knot, at.first * table_.base[at.knot]},
           {at.knot + 1, at.second * table_.base[at.knot + 1]},
           {knots + at.knot, share * at.first * table_.compensators[at.knot]},
           {knots + at.knot + 1, share * at.second * table_.compensators[at.knot + 1]},
           {2 * knots, table_.decode_row * static_cast<double>(s.decode_rows)},
           {2 * knots + 1, table_.context_token * static_cast<double>(s.context_tokens)},
           {2 * knots + 2, table_.prefill_pair * static_cast<double>(s.prefill_pairs)}}};
}

double LearnedCosts::predict(const Terms& terms) const {
  double sum = 0;
  for (const Term& t : terms) sum += factors_[t.factor] * t.seconds;
  return std::max(sum, 0.0);
}

double LearnedCosts::seconds(const StepShape& shape) const {
  return predict(terms(shape));
}

void LearnedCosts::observe(const StepShape& shape, double seconds) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  const Terms parts = terms(shape);
  const double predicted = predict(parts);
  if (!(predicted > 0)) return;
  ++observed_;
  const double rate = std::max(kErrorRate, 1.0 / static_cast<double>(observed_));
  error_ += rate * (std::min(std::abs(predicted - seconds) / seconds, 1.0) - error_);
  const bool above = seconds > headroom_ * predicted;
  headroom_ += kHeadroomRate * (above ? kQuantile : kQuantile - 1);
  headroom_ = std::clamp(headroom_, 1.0, kMostHeadroom);
  learn(parts, predicted, seconds);
}

// The update of a Kalman filter whose one measurement is the step's time, with a surprise cut off.
void LearnedCosts::learn(const Terms& terms, double predicted, double seconds) {
  const size_t n = count_;
  std::ranges::fill(product_, 0.0);  // covariance · gradient
  for (const Term& t : terms)
    for (size_t i = 0; i < n; ++i) product_[i] += covariance_[i * n + t.factor] * t.seconds;
  double variance = kNoise * kNoise * predicted * predicted;
  for (const Term& t : terms) variance += product_[t.factor] * t.seconds;
  const double most = kBelieved * std::sqrt(variance);
  const double surprise = std::clamp(seconds - predicted, -most, most);
  for (size_t i = 0; i < n; ++i)
    factors_[i] = std::clamp(factors_[i] + product_[i] * surprise / variance, kLeast, kMost);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) covariance_[i * n + j] -= product_[i] * product_[j] / variance;
  let_drift();
}

// What is not seen for long is known no worse than at the start.
void LearnedCosts::let_drift() {
  const size_t n = count_;
  constexpr double kCeiling = kOwnStart * kOwnStart + kPaceStart * kPaceStart;
  double largest = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) covariance_[i * n + j] += kPaceDrift * kPaceDrift;
    covariance_[i * n + i] += kOwnDrift * kOwnDrift;
    largest = std::max(largest, covariance_[i * n + i]);
  }
  if (largest > kCeiling)
    for (double& value : covariance_) value *= kCeiling / largest;
}

StepCostTable LearnedCosts::table() const {
  StepCostTable out = table_;
  const size_t knots = out.rows.size();
  for (size_t i = 0; i < knots; ++i) {
    out.base[i] *= factors_[i];
    out.compensators[i] *= factors_[knots + i];
  }
  out.decode_row *= factors_[2 * knots];
  out.context_token *= factors_[2 * knots + 1];
  out.prefill_pair *= factors_[2 * knots + 2];
  return out;
}

}  // namespace spear
