#include "spear/engine/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "spear/engine/row_math.h"

namespace spear {
namespace {

using Candidates = std::vector<SamplerCandidate>;

// Beyond this many the k best are selected from all instead of kept in a heap.
constexpr int32_t kLargestHeap = 512;

bool heavier(const SamplerCandidate& a, const SamplerCandidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

double mass_of(std::span<const SamplerCandidate> candidates) {
  double mass = 0;
  for (const SamplerCandidate& c : candidates) mass += static_cast<double>(c.weight);
  return mass;
}

// Keeps the fewest candidates, first by `before`, whose weights reach `wanted`. Halves the range in
// which the last of them stands: the expected work is a small multiple of the candidates.
template <class Before>
void keep_mass(Candidates& candidates, double wanted, Before before) {
  if (candidates.size() < 2) return;
  const auto at = [&](size_t i) { return candidates.begin() + static_cast<std::ptrdiff_t>(i); };
  size_t low = 0, high = candidates.size();
  double mass = 0;  // of [0, low), which is less than wanted
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(at(low), at(middle), at(high), before);
    const double left = mass_of(std::span(candidates).subspan(low, middle - low));
    if (mass + left >= wanted) {
      high = middle;
    } else {
      mass += left;
      low = middle;
    }
  }
  candidates.resize(low + 1);
}

// The k largest of a row; among equals the lower ids.
void take_largest(std::span<const float> row, int32_t k, Candidates& out) {
  out.clear();
  const auto count = static_cast<size_t>(k);
  if (k > kLargestHeap) {
    for (size_t i = 0; i < row.size(); ++i)
      if (row[i] > -std::numeric_limits<float>::infinity())
        out.push_back({row[i], static_cast<int32_t>(i)});
    if (out.size() <= count) return;
    std::nth_element(out.begin(), out.begin() + k, out.end(), heavier);
    out.resize(count);
    return;
  }
  // A heap whose front is the least of those kept.
  float least = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < row.size(); ++i) {
    if (!(row[i] > least)) continue;
    if (out.size() == count) {
      std::pop_heap(out.begin(), out.end(), heavier);
      out.pop_back();
    }
    out.push_back({row[i], static_cast<int32_t>(i)});
    std::push_heap(out.begin(), out.end(), heavier);
    if (out.size() == count) least = out.front().weight;
  }
}

// Tokens whose surprise is nearest to the expected one.
void keep_typical(Candidates& candidates, double share) {
  const double total = mass_of(candidates);
  double expected = 0;  // E[-ln w], so that -ln p = -ln w + ln total
  for (const SamplerCandidate& c : candidates)
    expected -= static_cast<double>(c.weight) / total * std::log(static_cast<double>(c.weight));
  const auto distance = [expected](const SamplerCandidate& c) {
    return std::abs(-std::log(static_cast<double>(c.weight)) - expected);
  };
  keep_mass(candidates, share * total, [&](const SamplerCandidate& a, const SamplerCandidate& b) {
    const double da = distance(a), db = distance(b);
    return da != db ? da < db : heavier(a, b);
  });
}

void keep_at_least(Candidates& candidates, double share) {
  float most = 0;
  for (const SamplerCandidate& c : candidates) most = std::max(most, c.weight);
  const double least = share * static_cast<double>(most);
  std::erase_if(candidates, [least](const SamplerCandidate& c) {
    return static_cast<double>(c.weight) < least;
  });
}

}  // namespace

SamplerWorkspace::SamplerWorkspace(int64_t vocab_size)
    : row(static_cast<size_t>(vocab_size)), raw(static_cast<size_t>(vocab_size)) {
  candidates.reserve(static_cast<size_t>(vocab_size));
}

TokenSampler::TokenSampler(const SamplingParams& params, uint64_t seed, int32_t choice,
                           std::span<const int32_t> prompt, int64_t most_new)
    : params_(params), rng_(seed, static_cast<uint64_t>(choice) + 1) {
  if (penalizes()) counts_ = TokenCounts(prompt, most_new);
}

bool TokenSampler::penalizes() const {
  return params_.repetition_penalty != 1 || params_.presence_penalty != 0 ||
         params_.frequency_penalty != 0;
}

void TokenSampler::accept(int32_t token) {
  if (penalizes()) counts_.add(token);
}

void TokenSampler::adjust(std::span<float> logits) const {
  for (const auto& [id, bias] : params_.logit_bias) logits[static_cast<size_t>(id)] += bias;
  if (!penalizes()) return;
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  for (const TokenCounts::Count& count : counts_.all()) {
    float& logit = logits[static_cast<size_t>(count.token)];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (count.in_answer > 0)
      logit -= static_cast<float>(params_.presence_penalty +
                                  params_.frequency_penalty * count.in_answer);
  }
}

int32_t TokenSampler::choose(std::span<float> logits, SamplerWorkspace& workspace) {
  const SamplingParams& p = params_;
  const Largest best = largest(logits);
  if (best.index < 0 || !std::isfinite(best.value)) return -1;
  // Colder than this the likeliest token is certain, and the scale would leave float's range.
  constexpr double kCold = 1e-5;
  if (p.temperature < kCold || p.top_k == 1) return best.index;
  const auto scale = static_cast<float>(1 / p.temperature);
  Candidates& candidates = workspace.candidates;
  const auto vocab = static_cast<int64_t>(logits.size());
  if (p.top_k > 0 && p.top_k < vocab) {
    take_largest(logits, p.top_k, candidates);
    for (SamplerCandidate& c : candidates) {
      exponentials({&c.weight, 1}, best.value, scale);
    }
  } else {
    const double total = exponentials(logits, best.value, scale);
    if (p.typical_p == 1 && p.top_p == 1 && p.min_p == 0) return draw_from_all(logits, total);
    // All that weigh less than this weigh less than 1 - top_p together: top-p leaves them out.
    const double least =
        p.typical_p == 1 && p.top_p < 1 ? (1 - p.top_p) * total / static_cast<double>(vocab) : 0;
    candidates.clear();
    for (size_t i = 0; i < logits.size(); ++i)
      if (logits[i] > 0 && static_cast<double>(logits[i]) >= least)
        candidates.push_back({logits[i], static_cast<int32_t>(i)});
    if (p.typical_p == 1 && p.top_p < 1) {
      keep_mass(candidates, p.top_p * total, heavier);
      keep_at_least(candidates, p.min_p);
      return draw(candidates);
    }
  }
  std::erase_if(candidates, [](const SamplerCandidate& c) { return !(c.weight > 0); });
  if (p.typical_p < 1) keep_typical(candidates, p.typical_p);
  if (p.top_p < 1) keep_mass(candidates, p.top_p * mass_of(candidates), heavier);
  if (p.min_p > 0) keep_at_least(candidates, p.min_p);
  return draw(candidates);
}

int32_t TokenSampler::draw_from_all(std::span<const float> weights, double total) {
  double u = rng_.uniform() * total;
  int32_t last = -1;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    last = static_cast<int32_t>(i);
    u -= static_cast<double>(weights[i]);
    if (u < 0) break;
  }
  return last;
}

int32_t TokenSampler::draw(std::span<const SamplerCandidate> candidates) {
  double u = rng_.uniform() * mass_of(candidates);
  int32_t last = -1;
  for (const SamplerCandidate& c : candidates) {
    last = c.id;
    u -= static_cast<double>(c.weight);
    if (u < 0) break;
  }
  return last;
}

double log_sum_exp(std::span<const float> logits) {
  const Largest best = largest(logits);
  if (best.index < 0) return -std::numeric_limits<double>::infinity();
  return static_cast<double>(best.value) + std::log(sum_of_exponentials(logits, best.value, 1));
}

float log_probabilities(std::span<const float> logits, int32_t token, int32_t count,
                        std::vector<TokenLogprob>& top) {
  const double sum = log_sum_exp(logits);
  const auto of = [sum](float logit) {
    return static_cast<float>(static_cast<double>(logit) - sum);
  };
  top.clear();
  // Few are asked for: they are inserted in order.
  for (size_t i = 0; i < logits.size() && count > 0; ++i) {
    const bool full = std::ssize(top) == count;
    if (full && !(logits[i] > top.back().logprob)) continue;
    if (full) top.pop_back();
    const auto place = std::find_if(top.begin(), top.end(),
                                    [&](const TokenLogprob& t) { return logits[i] > t.logprob; });
    top.insert(place, {static_cast<int32_t>(i), logits[i]});
  }
  for (TokenLogprob& t : top) t.logprob = of(t.logprob);
  return of(logits[static_cast<size_t>(token)]);
}

}  // namespace spear
