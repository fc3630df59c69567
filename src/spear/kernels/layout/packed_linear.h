// The layout that the processor's fused kernels read: panels of 32 output rows, whose bytes lie in
// the order in which they are used.
//
//   panel   := per group of columns: [codes][32 scales f16][32 zero points f16]
//              then [B, first half][B, second half] padded to 64 bytes, then [32 biases f32] if any
//   codes   := 4 bits: for every 8 columns 128 bytes; byte 4 i + u holds row i, column u (low) and
//              column u + 4 (high). 8 bits: for every 4 columns 128 bytes; byte 4 i + u is row i,
//              column u.
//   B half  := for every 2 ranks 32 bytes: row i, both ranks, int8
//
// A dword of codes is four columns of one row, what an 8-bit dot-product instruction takes; nothing
// is summed across lanes, and the same bytes serve one token and many. What is read after the codes
// stands behind them, so that a stream never goes back. Weights of 2, 3 and 6 bits are stored in
// the next wider of 4 and 8: the codes, hence the values, are the same. Stateless: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "spear/kernels/layout/packed_part.h"
#include "spear/kernels/w4_linear.h"

namespace spear {

// A module in the canonical layout.
struct LinearSource {
  QuantizedView weight;
  CompensatorView ec;
  const float* bias = nullptr;  // [n] or null
};

// Empty where the layout holds this module, else the property it lacks: "groups of 20 columns".
std::string why_not_packed(const LinearSource& source);
// The same for two modules as one paired part.
std::string why_not_paired(const LinearSource& first, const LinearSource& second);

// `sources`: one, or two for a paired part; why_not_... gave nothing.
PackedPart plan_part(std::span<const LinearSource> sources);
void pack_panel(const PackedPart& part, std::span<const LinearSource> sources, int64_t panel,
                uint8_t* out);  // [panel_bytes]

// What a panel holds, for tests and for whoever wants to look: the inverse of pack_panel.
struct UnpackedPanel {
  std::vector<uint8_t> codes;        // [32, columns]
  std::vector<float> scales, zeros;  // [32, groups]
  std::vector<int8_t> factors;       // first half [16, ranks[0]], second half [16, ranks[1]]
  std::vector<float> bias;           // [32] or empty
};
UnpackedPanel unpack_panel(const PackedPart& part, const uint8_t* panel);

// Rows of A of several compensators that read one input:
//   rows in fours, taking turns every 64 columns, as u8 = a + 128;
//   then A's scale of each row as f32, padded to 64 bytes.
struct RankRow {
  const CompensatorView* ec = nullptr;
  int32_t rank = 0;
};
constexpr int32_t rank_columns(int32_t k) {
  return (k + 63) / 64 * 64;
}
constexpr size_t packed_rank_bytes(int64_t rows, int32_t k) {
  return static_cast<size_t>(rows * rank_columns(k) + (rows * 4 + 63) / 64 * 64);
}
void pack_ranks(std::span<const RankRow> rows, int32_t k, uint8_t* out);
// The int8 rows again, [rows, k].
std::vector<int8_t> unpack_ranks(const uint8_t* packed, int64_t rows, int32_t k);

}  // namespace spear
