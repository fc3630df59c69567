// The geometry of packed panels (kernels/layout/packed_linear.h), as plain numbers that the
// instruction sets' files can include.
#pragma once

#include <stdint.h>

namespace spear {

inline constexpr int32_t kPanelRows = 32;
inline constexpr int32_t kMostPackedColumns = 65536;
inline constexpr int32_t kLargestPackedRank = 64;
inline constexpr int32_t kLargestPackedGate = 4 * kLargestPackedRank;  // hidden units

// One module, or two whose rows are used in pairs (gate and up), cut into panels. Made by
// plan_part().
struct PackedPart {
  int32_t n = 0;                        // output rows of one matrix
  int32_t k = 0;                        // inputs
  int32_t columns = 0;                  // k rounded up to a multiple of 32
  int32_t bits = 4;                     // 4 or 8
  int32_t group = 0;                    // columns that share a scale; `columns`: per channel
  int32_t ranks[2] = {0, 0};            // of both halves of a panel, rounded up to even
  int32_t rows_per_panel = kPanelRows;  // 16 where rows 16..31 are of a second matrix
  bool per_channel = true;
  bool bias = false;
  int64_t panels = 0;
  int64_t group_code_bytes = 0;  // codes of one group of columns
  int64_t group_bytes = 0;       // with its scales and zero points
  int64_t factor_offset = 0;     // of B within a panel
  int64_t bias_offset = 0;
  int64_t panel_bytes = 0;
};

}  // namespace spear
