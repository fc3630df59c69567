// Compensators of random values in a stated layout, for timing what a layout costs whatever was
// trained: speed depends on ranks and places, not on values. Stateless.
#pragma once

#include <cstdint>
#include <string>

#include "spear/base/error.h"
#include "spear/model/quantized_model.h"

namespace spear {

struct RandomLayout {
  int32_t rank = 0;     // of each chosen module, gated as the paper does
  int32_t percent = 0;  // of the modules of each kind
};

// "16@40": rank 16 on 40 % of the modules. kUsage for anything else.
Result<RandomLayout> parse_layout(const std::string& text);

// Puts INT8 compensators of the layout in place of the model's own; the seed chooses the modules,
// the same share of each of the seven kinds. kUsage when the rank exceeds a module.
void put_random_compensators(const RandomLayout& layout, uint64_t seed, QuantizedModel& model);

}  // namespace spear
