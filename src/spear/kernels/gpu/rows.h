// The fused quantized linear for few tokens (m ≤ 8): one block an SM owns a range of output rows
// and everything that happens to them,
//   y = s ⊙ (q·x − z·Σx) + bias + B·(γ(u) ⊙ u),
// with RMS norm of the input, SiLU·up or the residual's addition, and the share of its output in
// the NEXT product's u = A·x. Nothing is exchanged within a kernel: u arrives as one partial sum a
// block of the kernel that made x, and is added up in a fixed order. Device pointers; queued on a
// stream; results do not depend on scheduling.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace spear::gpu {

using Stream = CUstream_st*;

inline constexpr int32_t kMaxRowTokens = 8;

// A packed matrix in device memory (packed_matrix.h).
struct DeviceMatrix {
  int32_t n = 0, k = 0, bits = 4, group = 0;
  int32_t tiles = 0, units = 0, unit_bytes = 0;
  const uint8_t* data = nullptr;         // [tiles, units, unit_bytes]
  const uint16_t* row_scales = nullptr;  // [tiles · 8, 2] f16, per channel only
};

struct DeviceModule {
  int32_t first_row = 0, rank = 0, hidden = 0, offset = 0, gate = 0;  // see PackedModule
};

// What a product adds: B·(γ(u) ⊙ u).
struct DeviceCompensators {
  int32_t width = 0;  // 0: none
  int32_t b_stride = 0, modules = 0;
  bool interleaved = false;
  DeviceModule module[3];
  const int8_t* b = nullptr;        // [n, b_stride]
  const float* a_scales = nullptr;  // [width]
  const float* b_scales = nullptr;  // [width]
  const uint16_t* gate = nullptr;   // f16 [gate_halves]
  int32_t gate_halves = 0;
};

// Partial sums of u, as the kernel that made x left them.
struct LowRankInput {
  const float* partials = nullptr;  // [m, parts, width]
  int32_t parts = 0;
};

// What the maker of x owes the next product: partials[token, block, :] = Σ over the block's
// outputs i of weight[i] · out[token, i] · a[i, :].
struct LowRankOutput {
  int32_t width = 0;              // 0: nothing is owed
  const int8_t* a = nullptr;      // [outputs, width]
  const float* weight = nullptr;  // [outputs] of a norm in between, or null: ones
  float* partials = nullptr;      // [m, blocks, width]
};

enum class RowsInput : int32_t {
  kHalf,  // f16, times input_scale
  kNorm,  // f32, RMS norm with norm_weight (null: ones)
};
enum class RowsOutput : int32_t {
  kStore,     // y = result, f32
  kResidual,  // y += result, f32
  kSilu,      // rows come as gate, up, gate, ...: half_y[i] = silu(gate) · up / kSiluScale
};

// SiLU·up leaves the range of f16 in some models; a sixteenth of it does not, and what is lost
// below is smaller than the rounding of the rest.
inline constexpr float kSiluScale = 16.0f;

struct RowsArgs {
  int32_t m = 0;
  DeviceMatrix w;
  RowsInput input = RowsInput::kHalf;
  const void* x = nullptr;  // [m, k]
  float input_scale = 1;
  const float* norm_weight = nullptr;  // [k] or null
  float eps = 0;
  RowsOutput output = RowsOutput::kStore;
  const float* bias = nullptr;  // [n] in packed order, or null
  float* y = nullptr;           // [m, n]
  uint16_t* half_y = nullptr;   // [m, n / 2]
  DeviceCompensators ec = {};
  LowRankInput u = {};
  LowRankOutput next = {};
};

// Blocks that rows() launches for a matrix: the parts of LowRankInput.
int32_t rows_blocks(const DeviceMatrix& w, int32_t multiprocessors);
// Whether one block's shared memory holds the case.
bool rows_fits(const RowsArgs& args, int32_t multiprocessors);
// `dependent`: the kernel before it in the stream called launch_dependents() or ended.
void rows(const RowsArgs& args, int32_t multiprocessors, bool dependent, Stream stream);

}  // namespace spear::gpu
