// Speeds of a decoder: prompts, single tokens and batches, each several times and in turns, so that
// a machine whose speed drifts treats all alike. One thread; the decoder uses its backend's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "spear/base/progress.h"
#include "spear/model/decoder.h"
#include "spear/model/kv_cache.h"

namespace spear {

// One thing to measure. A prompt: `tokens` at once into an empty cache, the last one's logits.
// Decoding: `tokens` steps of `batch` sequences of which each holds `context` tokens at first, all
// logits.
struct BenchCase {
  bool prefill = false;
  int64_t tokens = 128, context = 0, batch = 1;

  [[nodiscard]] std::string name() const;  // "prefill 512", "decode 128 after 2048", "… × 8"
};

struct BenchSubject {
  Decoder* decoder = nullptr;
  bool compensators = true;
  uint64_t weight_bytes = 0;  // read by every step of few tokens
};

// All runs of one case by one subject.
struct BenchRuns {
  BenchCase what;
  bool compensators = true;
  std::vector<double> seconds;       // of each run
  uint64_t bytes_per_step = 0;       // weights and, at the middle of a run, keys and values
  double multiply_adds_per_run = 0;  // of the linears and the head
  double ceiling = 0;                // decode: bytes a second; prefill: 8-bit operations a second

  [[nodiscard]] double tokens() const { return static_cast<double>(what.tokens * what.batch); }
};

struct BenchPlan {
  std::vector<BenchCase> cases;
  int repeats = 5;
  DType kv = DType::kF16;
};

// Throws Failure where a case does not fit the model's context or the memory of this machine.
void check_cases(const BenchPlan& plan, const ModelConfig& config);

// One entry a case and subject, in that order. `subjects` are the same model with and without its
// compensators, on one backend.
std::vector<BenchRuns> run_sweep(Backend& backend, std::span<const BenchSubject> subjects,
                                 const BenchPlan& plan, ThreadPool& pool, Progress& progress);

}  // namespace spear
