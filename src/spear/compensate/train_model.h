// The trained part of a recipe: its stages on a base model, then compensators switched off one by
// one, the useless ones dropped and their bytes spent on rank elsewhere, and a short training of
// the result. Interrupted, it goes on where it was; finished steps stand in the work folder. One
// thread; works on the pool and the backend.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/compensate/recipes.h"
#include "spear/compensate/trainer.h"
#include "spear/model/dense_model.h"
#include "spear/model/quantized_model.h"
#include "spear/quantize/covariance.h"

namespace spear {

struct StageReport {
  std::string name;
  double held_out_before = 0, held_out_after = 0;
  int64_t best_step = 0;
  double seconds = 0;
  std::vector<LossPoint> curve;
};

struct TrainReport {
  std::vector<StageReport> stages;
  int64_t dropped = 0;      // compensators
  size_t freed_bytes = 0;   // of these
  int64_t ranks_added = 0;  // elsewhere
};

struct TrainContext {
  const DenseModel& dense;
  const Covariances* covariances;  // null: freed bytes are not spent
  const TokenSequences& tokens;
  const TeacherStates& teacher;
  Backend& backend;
  ThreadPool& pool;
  Compute compute = Compute::kBF16;
  size_t memory = 0;           // bytes that training may hold; 0: what is free
  std::filesystem::path work;  // folder for checkpoints; empty: none
};

// Trains `model` in place. `start`: compensators in place of the model's own (the paper's random
// ones, gates), or empty.
TrainReport train_model(QuantizedModel& model, const RecipePlan& plan, const CompensatorList& start,
                        const TrainContext& context, Progress& progress);

}  // namespace spear
