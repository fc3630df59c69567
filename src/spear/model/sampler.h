// Chooses the next token from logits: greedy, or drawn after temperature, top-k, top-p and min-p,
// in this order, with a penalty on tokens that occurred. The same seed gives the same choices. One
// thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/rng.h"

namespace spear {

struct SamplingOptions {
  double temperature = 0.7;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  double top_p = 0.95;       // 1: off; the likeliest tokens that together have this probability
  double min_p = 0;          // 0: off; as a share of the likeliest token's probability
  double repetition_penalty =
      1;  // 1: off; divides positive logits of seen tokens, multiplies others
  uint64_t seed = 0;
};

// kUsage naming the option that makes no sense.
Result<void> validate(const SamplingOptions& options);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // `logits` [vocab] are changed by the penalty; `seen` holds ids of this vocabulary. Throws
  // Failure(kInternal) when no logit is finite.
  int32_t pick(std::span<float> logits, std::span<const int32_t> seen);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };

  void penalize(std::span<float> logits, std::span<const int32_t> seen);
  [[nodiscard]] double weight(float logit, float most) const;
  double take_likeliest(std::span<const float> logits);
  int32_t draw(std::span<const float> logits);

  SamplingOptions options_;
  Rng rng_;
  std::vector<bool> penalized_;
  std::vector<Candidate> heap_;
  std::vector<double> weights_;  // of the candidates taken from the heap, largest first
  std::vector<int32_t> ids_;
};

}  // namespace spear
