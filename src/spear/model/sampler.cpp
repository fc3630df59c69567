#include "spear/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace spear {
namespace {

Result<void> refuse(const char* option, const char* expected, double found) {
  return fail(ErrorCode::kUsage, fmt::format("{}: {} expected, found {}", option, expected, found));
}

int32_t likeliest(std::span<const float> logits) {
  size_t best = logits.size();
  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isfinite(logits[i]) && (best == logits.size() || logits[i] > logits[best])) best = i;
  if (best == logits.size())
    throw Failure(ErrorCode::kInternal,
                  "the model's logits are not numbers: its weights are damaged");
  return static_cast<int32_t>(best);
}

}  // namespace

Result<void> validate(const SamplingOptions& o) {
  if (!(o.temperature >= 0 && o.temperature <= 100))
    return refuse("temperature", "0 to 100", o.temperature);
  if (o.top_k < 0) return refuse("top-k", "0 (off) or more", o.top_k);
  if (!(o.top_p > 0 && o.top_p <= 1)) return refuse("top-p", "above 0, at most 1", o.top_p);
  if (!(o.min_p >= 0 && o.min_p < 1)) return refuse("min-p", "0 (off) to below 1", o.min_p);
  if (!(o.repetition_penalty >= 0.1 && o.repetition_penalty <= 10))
    return refuse("repetition penalty", "0.1 to 10", o.repetition_penalty);
  return {};
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), rng_(options.seed) {}

int32_t Sampler::pick(std::span<float> logits, std::span<const int32_t> seen) {
  if (options_.repetition_penalty != 1) penalize(logits, seen);
  const int32_t best = likeliest(logits);
  if (options_.temperature == 0 || options_.top_k == 1) return best;
  return draw(logits);
}

// Each seen token once, however often it was seen.
void Sampler::penalize(std::span<float> logits, std::span<const int32_t> seen) {
  penalized_.assign(logits.size(), false);
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (const int32_t id : seen) {
    const auto at = static_cast<size_t>(id);
    if (at >= logits.size() || penalized_[at]) continue;
    penalized_[at] = true;
    logits[at] = logits[at] > 0 ? logits[at] / penalty : logits[at] * penalty;
  }
}

double Sampler::weight(float logit, float most) const {
  return std::exp((static_cast<double>(logit) - static_cast<double>(most)) / options_.temperature);
}

// Candidates leave a heap from the likeliest on, only as many as the limits let in: nothing is
// sorted that is not used. Returns the sum of their weights.
double Sampler::take_likeliest(std::span<const float> logits) {
  const auto less = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
  };
  heap_.clear();
  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isfinite(logits[i])) heap_.push_back({logits[i], static_cast<int32_t>(i)});
  std::make_heap(heap_.begin(), heap_.end(), less);
  const float most = heap_.front().logit;

  const bool limited = options_.top_k > 0;
  const size_t limit =
      limited ? std::min(heap_.size(), static_cast<size_t>(options_.top_k)) : heap_.size();
  double enough = std::numeric_limits<double>::infinity();
  if (!limited && options_.top_p < 1) {
    enough = 0;
    for (const Candidate& c : heap_) enough += options_.top_p * weight(c.logit, most);
  }
  weights_.clear();
  ids_.clear();
  double taken = 0;
  while (ids_.size() < limit && taken < enough) {
    std::pop_heap(heap_.begin(), heap_.end(), less);
    const Candidate c = heap_.back();
    heap_.pop_back();
    const double w = weight(c.logit, most);
    if (w < options_.min_p) break;
    weights_.push_back(w);
    ids_.push_back(c.id);
    taken += w;
  }
  return taken;
}

int32_t Sampler::draw(std::span<const float> logits) {
  double taken = take_likeliest(logits);
  if (options_.top_k > 0 && options_.top_p < 1) {  // a share of what top-k left
    const double enough = options_.top_p * taken;
    size_t count = 0;
    for (taken = 0; count < weights_.size() && taken < enough; ++count) taken += weights_[count];
    weights_.resize(count);
  }
  double u = rng_.uniform() * taken;
  for (size_t i = 0; i + 1 < weights_.size(); ++i) {
    u -= weights_[i];
    if (u < 0) return ids_[i];
  }
  return ids_[weights_.size() - 1];
}

}  // namespace spear
