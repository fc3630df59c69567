// The layout in which the fused GPU kernels read weights and compensators, and its packing on the
// host. No CUDA here: packing is tested by round trip on any machine. Any thread.
//
// A matrix is cut into tiles of 8 rows, a tile into units of 512 bytes: 8 rows × 128 inputs of 4
// bits, × 64 of 8, or × 32 of 16 (f16 values). Lane l = 4 g + t of a warp reads its 16 bytes of a
// unit as the B fragments of m16n8k16 products: row g of the tile, inputs 64 h + 16 t .. + 15 of
// half h (of 32 inputs: 8 t .. + 7). The order of inputs within a product is free, since the
// activations are read in the same order. With groups, the scales and zero points of the unit's 8
// rows follow as pairs of f16 (one pair a row and group); per channel they stand apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "spear/kernels/w4_linear.h"

namespace spear::gpu {

inline constexpr int32_t kTileRows = 8;

struct PackedShape {
  int32_t n = 0, k = 0;
  int32_t bits = 4;   // 4, 8 or 16: as stored on the device
  int32_t group = 0;  // 0: per channel; 64 or 128, of 4-bit codes only

  [[nodiscard]] int32_t tiles() const { return (n + kTileRows - 1) / kTileRows; }
  [[nodiscard]] int32_t unit_inputs() const { return 512 / bits; }
  [[nodiscard]] int32_t units() const { return (k + unit_inputs() - 1) / unit_inputs(); }
  [[nodiscard]] int32_t unit_bytes() const {
    return 512 + (group == 0 ? 0 : 128 / group * kTileRows * 4);
  }
  [[nodiscard]] size_t bytes() const {
    return static_cast<size_t>(tiles()) * static_cast<size_t>(units()) *
           static_cast<size_t>(unit_bytes());
  }
};

// How the rows of several matrices with one input become one matrix.
enum class RowOrder : uint8_t {
  kStacked,      // all rows of the first, then of the second, ...
  kInterleaved,  // row 2 i of the first's row i, row 2 i + 1 of the second's: gate and up
};

struct PackedMatrix {
  PackedShape shape;
  std::vector<uint8_t> units;        // [tiles, units, unit_bytes]
  std::vector<uint16_t> row_scales;  // [tiles · 8, 2] f16: scale, zero point; per channel only
  bool expanded = false;  // no layout keeps the codes: f16 values instead (the plain path)
};

// The matrices share k. Codes of 2 to 4 bits are stored as 4 bits, of 6 and 8 as 8, where scales
// stand per channel (4 bits also: in groups of a multiple of 64); anything else as f16 values.
PackedMatrix pack_matrices(std::span<const QuantizedView> parts, RowOrder order);

// The value of element (row, column) as a kernel sees it: for tests, and for what is small.
float packed_value(const PackedMatrix& matrix, int32_t row, int32_t column);

// The compensators of one fused product. Their low-rank inputs stand side by side in one vector u
// of `width` entries: module i owns [offset, offset + rank).
struct PackedModule {
  int32_t first_row = 0;  // of the fused product; interleaved: the parity of its rows
  int32_t rank = 0, hidden = 0, offset = 0;
  int32_t gate = 0;  // first entry in `gate`: w1, b1, w2, b2
};
struct PackedCompensators {
  int32_t width = 0;     // 0: none; else a power of two from 8 to 512
  int32_t b_stride = 0;  // bytes a row of b: the widest rank, rounded up to 4
  RowOrder order = RowOrder::kStacked;
  std::vector<PackedModule> modules;
  std::vector<int8_t> a;        // [k, width]: column-wise, for the kernel that makes x
  std::vector<int8_t> b;        // [n, b_stride]: of the row's own module
  std::vector<float> a_scales;  // [width]
  std::vector<float> b_scales;  // [width]
  std::vector<uint16_t> gate;   // f16, all modules
};

// Factors of 4 and 8 bits. False where a module's factors are f16 or the ranks sum to more than
// 512: such a product runs through the plain path.
bool pack_compensators(std::span<const CompensatorView> parts, std::span<const QuantizedView> of,
                       RowOrder order, PackedCompensators* out);

}  // namespace spear::gpu
