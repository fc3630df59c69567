// AdamW (Loshchilov & Hutter, 2019) over one flat vector of parameters, each element with a step
// size of its own, a gradient clipped by its global norm, and a schedule. Serial sums in a fixed
// order: the same bits on every run.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spear {

enum class Schedule : uint8_t {
  kConstant,
  kCosine,  // linear warm-up, then half a cosine down to `floor`
};

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0;
  double clip_norm = 1.0;  // of the whole gradient; 0: none
  Schedule schedule = Schedule::kCosine;
  int64_t steps = 0;  // kCosine: the length of the run
  int64_t warmup = 20;
  double floor = 0.05;  // share of the rate that is left at the end
};

// What the rates are multiplied with at a step (counted from 0).
double schedule_factor(const AdamWOptions& options, int64_t step);

// The moments of an optimisation, for checkpoints.
struct AdamWState {
  int64_t step = 0;
  std::vector<float> first, second;
};

class AdamW {
 public:
  AdamW(const AdamWOptions& options, size_t count);
  AdamW(const AdamWOptions& options, AdamWState state)
      : options_(options), state_(std::move(state)) {}

  // One step. `rates` are the step sizes of the elements, 0: left alone (neither moved nor counted
  // in the norm). An element is thought of as rate-sized units: its gradient is multiplied by
  // `gains` before the norm and the moments, and its step likewise, as if value / gain were the
  // parameter. Returns the norm before clipping.
  double step(std::span<float> values, std::span<const float> gradients,
              std::span<const float> rates, std::span<const float> gains);

  [[nodiscard]] const AdamWState& state() const { return state_; }

 private:
  AdamWOptions options_;
  AdamWState state_;
};

}  // namespace spear
