// What steps of a model cost on this machine, measured in seconds before it serves: a grid of rows,
// the price of a decode row, of a key and of a (row, key) pair, with all compensators and, where
// the model can switch them off, without. Writes nonsense into the model's pages: to be called
// before an engine uses it. One thread.
#pragma once

#include <functional>
#include <vector>

#include "spear/engine/step_model.h"
#include "spear/scheduler/cost_table.h"

namespace spear {

struct MeasureOptions {
  int64_t token_budget = 512;  // the largest step that will run
  int32_t max_running = 32;
  double seconds = 3;  // about; more rounds in more time, two at least
  // What is left of the compensators' work at each level of the model; empty: all at every level.
  std::vector<double> level_shares = {};
  std::function<double()> clock = {};  // seconds; empty: the steady clock
};

// Throws Failure(kUsage) for a pool too small to measure with.
StepCostTable measure_step_costs(StepModel& model, const MeasureOptions& options);

}  // namespace spear
