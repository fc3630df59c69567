// The whole of `spear diagnose`: the model's own text sampled (or found in the cache), each module
// rounded alone, the damage measured; and the choice of modules that follows. One thread; works on
// the machine's pool.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "spear/base/progress.h"
#include "spear/cli/machine.h"
#include "spear/diagnose/damage_report.h"
#include "spear/diagnose/placement.h"
#include "spear/model/decoder.h"
#include "spear/quantize/grid.h"

namespace spear {

struct DiagnosisSettings {
  int64_t sequences = 64, length = 256;  // self-sampled
  int64_t kl_stride = 8;
  uint64_t seed = 1;
  GridOptions grid;             // each module alone: round to nearest on this grid
  std::filesystem::path cache;  // samples and finished modules; empty: nothing is kept
};

// A smaller sample: minutes instead of most of an hour, at the price of noise.
void make_quick(DiagnosisSettings& settings);

// Throws Failure; kInterrupted after what is finished was saved.
DamageReport run_diagnosis(const DenseModel& model, const DiagnosisSettings& settings,
                           Machine& machine, Compute compute, Progress& progress);

struct PlacementSettings {
  CostTable costs;
  int64_t rank = 8;  // the compensator that the cost is of
  CoverRule cover;
  PlacementOptions options;
};

struct Placement {
  Cover cover;
  std::vector<int64_t> modules;  // by ModuleId::index(), in the order of choice
};
Placement place_compensators(const DamageReport& report, const ModelConfig& config,
                             const PlacementSettings& settings);

}  // namespace spear
