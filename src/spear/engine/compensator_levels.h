// Which compensators go off first when time is short: those that change the model least for the
// time they take. A site's worth is how large its corrections are beside the weights they correct,
// Σ ‖α B A‖² / ‖Ŵ‖² (no data is needed); its price is its multiply-adds a row. Level 0 runs all,
// the last level none, those between keep the sites of most worth for their price. Plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/model/quantized_model.h"

namespace spear {

struct CompensatorLevels {
  std::vector<std::vector<uint8_t>> active;  // by level: [layers * 4], 1: the site's run
  std::vector<double> shares;                // by level: of the compensators' work that is left
  [[nodiscard]] int32_t count() const { return static_cast<int32_t>(active.size()); }
};

// `steps` levels beside 0; a model without compensators has level 0 alone.
CompensatorLevels plan_levels(const QuantizedModel& model, int32_t steps);

}  // namespace spear
