// The uniform grid of one group of weights: value = scale · (code − zero), codes 0 … 2^bits − 1.
// The scale is rounded to F16 and the zero to what its kind can store before any code is chosen, so
// codes are optimal for what is stored. Pure functions, any thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "spear/kernels/w4_linear.h"

namespace spear {

struct GridOptions {
  int32_t bits = 4;
  int32_t group = 0;       // inputs that share a scale; 0: the whole row
  bool symmetric = false;  // zero = 2^(bits-1), not stored
  bool search = false;     // shrink the range where that lowers the weighted squared error
  ZeroKind zero_kind = ZeroKind::kU4;  // of asymmetric grids; see stored_zero_kind()
};

struct Grid {
  float scale = 1.0f;
  float zero = 0.0f;
};

// What the zeros of such a grid are packed as: nothing when symmetric, F16 when codes have more
// than 4 bits.
ZeroKind stored_zero_kind(const GridOptions& options);

// Rounded to F16, never zero.
float stored_scale(float scale);

inline float largest_code(int32_t bits) {
  return static_cast<float>((1 << bits) - 1);
}

// The grid that spans [low, high] (widened to hold 0).
Grid grid_of_range(float low, float high, const GridOptions& options);

// The grid of `count` weights; with options.search the best of a list of shrunken ranges by Σ
// importance·(w − ŵ)².
Grid grid_of(const float* weights,     // [count]
             const float* importance,  // [count], or null: ones
             int64_t count, const GridOptions& options);

// Σ importance·(w − ŵ)² of plain rounding.
float grid_error(const float* weights, const float* importance, int64_t count, Grid grid,
                 float max_code);

// Rounds to the nearest even integer; exact for |value| < 2^22. Unlike std::nearbyint it is two
// additions in a vector unit without SSE4.1.
inline float round_to_even(float value) {
  constexpr float kShift = 12582912.0f;  // 1.5 · 2^23
  return (value + kShift) - kShift;
}

// The nearest code, as a real number.
inline float code_of(float weight, Grid grid, float max_code) {
  return round_to_even(std::min(std::max(weight / grid.scale + grid.zero, 0.0f), max_code));
}

inline float value_of(float code, Grid grid) {
  return (code - grid.zero) * grid.scale;
}

}  // namespace spear
