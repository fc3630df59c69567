// What a step is predicted to cost, in seconds. The scheduler is handed one with every plan and
// keeps none: the same scheduler runs under measured costs, tables and virtual clocks. One thread.
#pragma once

#include <cstdint>

namespace spear {

// What decides how long a step takes.
struct StepShape {
  int64_t decode_sequences = 0;  // sequences with one new token (and their drafts)
  int64_t decode_rows = 0;       // their rows, drafts included
  int64_t prefill_tokens = 0;    // rows of prompts
  int64_t context_tokens = 0;    // keys read by decode rows
  int64_t prefill_pairs = 0;     // (row, key) pairs of prompts
  int32_t level = 0;             // which compensators run; 0: all of them
};

class StepCostModel {
 public:
  virtual ~StepCostModel() = default;
  [[nodiscard]] virtual double seconds(const StepShape& shape) const = 0;
  // What a deadline's prediction is multiplied with, so that nearly all steps keep it; at least 1.
  [[nodiscard]] virtual double headroom() const { return 1; }
  // Mean relative error of predictions lately; 0 where nothing is learned.
  [[nodiscard]] virtual double error() const { return 0; }
  // Levels that may be asked for: 0 to levels() - 1, each with fewer compensators than the last.
  [[nodiscard]] virtual int32_t levels() const { return 1; }
  // A step took this long. Models that learn do so here.
  virtual void observe(const StepShape& /*shape*/, double /*seconds*/) {}
};

// A sum of terms: enough for scenarios.
struct LinearCosts final : StepCostModel {
  double step = 0;           // every step
  double decode_row = 0;     // a row of a decoding sequence
  double prefill_token = 0;  // a row of a prompt
  double context_token = 0;  // a key read by a decode row
  double prefill_pair = 0;   // a (row, key) pair of a prompt

  [[nodiscard]] double seconds(const StepShape& s) const override {
    return step + decode_row * static_cast<double>(s.decode_rows) +
           prefill_token * static_cast<double>(s.prefill_tokens) +
           context_token * static_cast<double>(s.context_tokens) +
           prefill_pair * static_cast<double>(s.prefill_pairs);
  }
};

}  // namespace spear
