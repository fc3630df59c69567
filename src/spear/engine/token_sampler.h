// Chooses the next token of one answer from logits, as SamplingParams say. Filters select, they
// never sort: a top-k scan, and a weighted quickselect for top-p and typical. One u in [0, 1) is
// drawn for each token chosen with a temperature, so the same seed and logits give the same tokens
// however they were batched. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/base/rng.h"
#include "spear/engine/request.h"
#include "spear/engine/token_counts.h"

namespace spear {

struct SamplerCandidate {
  float weight = 0;
  int32_t id = -1;
};

// Memory that choosing needs, shared by the answers that one thread serves.
struct SamplerWorkspace {
  explicit SamplerWorkspace(int64_t vocab_size);
  std::vector<SamplerCandidate> candidates;  // up to the vocabulary
  std::vector<float> row, raw;               // copies of logits, for whoever needs them
  std::vector<TokenLogprob> top;
};

class TokenSampler {
 public:
  // `choice`: which answer of a request; each has its own random numbers. `most_new`: tokens that
  // the answer can have.
  TokenSampler(const SamplingParams& params, uint64_t seed, int32_t choice,
               std::span<const int32_t> prompt, int64_t most_new);

  // Bias and penalties, in place.
  void adjust(std::span<float> logits) const;
  // The chosen token; the logits are overwritten. -1: no logit is finite.
  int32_t choose(std::span<float> logits, SamplerWorkspace& workspace);
  // The token belongs to the answer now.
  void accept(int32_t token);

 private:
  int32_t draw_from_all(std::span<const float> weights, double total);
  int32_t draw(std::span<const SamplerCandidate> candidates);
  [[nodiscard]] bool penalizes() const;

  SamplingParams params_;
  Rng rng_;
  TokenCounts counts_;
};

// The model's own log-probabilities of a token and of the `count` likeliest, likeliest first.
// `top` holds min(count, vocab) entries after the call.
float log_probabilities(std::span<const float> logits, int32_t token, int32_t count,
                        std::vector<TokenLogprob>& top);
// log Σ e^logit.
double log_sum_exp(std::span<const float> logits);

}  // namespace spear
