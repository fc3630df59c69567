// Trains a student by the end-to-end KL to its reference: batches drawn from a seed, AdamW,
// rounding in the loop towards the end, held-out KL every so often, the best kept. A checkpoint is
// written every so often and when progress asks to stop; the same call then goes on and ends with
// the same bytes as an uninterrupted one (with the same backend and thread count). One thread;
// works on the pool and the backend.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "spear/base/progress.h"
#include "spear/compensate/adamw.h"
#include "spear/compensate/rounding.h"
#include "spear/compensate/teacher_states.h"
#include "spear/model/gradients.h"

namespace spear {

// Step sizes by kind; 0: not trained. Scales are multipliers of their start and norms are shares of
// their size, zero points are in code units. Factors are in units of their rank row's size at the
// start (`relative_factors`), or plain.
struct LearningRates {
  float scale = 0, zero = 0, bias = 0, factors = 0, gate = 0, norm = 0;
  [[nodiscard]] float of(ParameterKind kind) const;
  [[nodiscard]] KindSet kinds() const;
  [[nodiscard]] LearningRates times(float factor) const;
};

struct TrainerOptions {
  int64_t steps = 150;
  int64_t batch = 8;            // sequences per step
  int64_t micro_tokens = 2048;  // passed through together; sums of gradients depend on it
  float temperature = 1.0f;
  LearningRates rates;
  bool relative_factors = true;
  float alpha = 1.0f;               // B stands as alpha times a trained matrix; with plain factors
  AdamWOptions adamw;               // steps are taken from above
  int32_t factor_bits = 8;          // what factors are rounded to
  double rounding_share = 1.0 / 3;  // of the steps, at the end
  bool keep_best = true;            // by held-out KL; false: the last
  double held_out_share = 0.05;
  int64_t held_out_most = 32;  // sequences
  int64_t evaluate_every = 25, checkpoint_every = 25;
  uint64_t seed = 1;
};

// Every option that decides the result, as one line of JSON: names checkpoints, stands in
// artifacts.
std::string to_json_text(const TrainerOptions& options);

struct TrainingData {
  const TokenSequences& tokens;
  const TeacherStates& teacher;
  TensorView reference_head;  // [vocab, hidden] bf16 or f32
};

struct LossPoint {
  int64_t step = 0;      // after this many steps
  double loss = 0;       // of the training batches, smoothed
  double held_out = -1;  // rounded as it would be stored; -1: not measured here
};

struct TrainingResult {
  std::vector<float> values;  // rounded: what store_student() keeps exactly
  double held_out_before = 0, held_out_after = 0;
  int64_t best_step = 0;
  std::vector<LossPoint> curve;
};

// Indices of the held-out sequences and of the others, drawn from the seed.
struct HeldOutSplit {
  std::vector<int64_t> training, held_out;
};
HeldOutSplit split_held_out(int64_t count, const TrainerOptions& options);

// The sequences of one step: epochs in a seeded order, so a step needs no history.
std::vector<int64_t> batch_of_step(std::span<const int64_t> training, int64_t step,
                                   const TrainerOptions& options);

// Mean KL of the given values over some sequences.
double mean_kl(ReversePass& pass, std::span<const float> values, const TrainingData& data,
               std::span<const int64_t> sequences, int64_t micro_tokens, float temperature);

// `checkpoint`: a file of this run alone, empty: none. Throws Failure: kInterrupted after a
// checkpoint, kUsage when the loss is not finite or there are too few sequences.
TrainingResult train(const StudentModel& student, const TrainingData& data, ReversePass& pass,
                     const TrainerOptions& options, const std::filesystem::path& checkpoint,
                     Progress& progress);

// Keeps activations where `memory` bytes (0: what the machine has free) allow it, and says so in
// the log.
ReversePassOptions choose_pass_options(const StudentModel& student, const TrainerOptions& options,
                                       int64_t length, Compute compute, size_t memory);

}  // namespace spear
