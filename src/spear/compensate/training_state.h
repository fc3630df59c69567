// What a training needs to go on after an interruption: written whole or not at all, checked when
// read. Plain data.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "spear/compensate/adamw.h"
#include "spear/compensate/trainer.h"

namespace spear {

struct TrainingState {
  std::vector<float> values;  // before rounding
  AdamWState optimizer;
  double smoothed = 0;             // loss
  std::vector<float> best_values;  // rounded; empty until the first measurement
  double best = 0;                 // held-out KL
  int64_t best_step = 0;
  double held_out_before = 0;
  std::vector<LossPoint> curve;
};

// `key` names the run (options, data, student): a file of another run is refused.
void save_training_state(const std::filesystem::path& path, const std::string& key,
                         const TrainingState& state);
// Nothing when there is no file, or it is damaged, or belongs to another run (said in the log):
// training starts anew.
std::optional<TrainingState> load_training_state(const std::filesystem::path& path,
                                                 const std::string& key, size_t parameters);

}  // namespace spear
