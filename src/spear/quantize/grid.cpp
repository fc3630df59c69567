#include "spear/quantize/grid.h"

#include <cmath>

#include "spear/base/dtype.h"

namespace spear {
namespace {

constexpr int kShrinkSteps = 20;
constexpr float kShrinkStep = 0.02f;
constexpr float kSmallestScale = 0x1p-24f;  // the smallest positive F16

float stored_zero(float zero, const GridOptions& options) {
  const float max_code = largest_code(options.bits);
  switch (stored_zero_kind(options)) {
    case ZeroKind::kNone:
      return static_cast<float>(1 << (options.bits - 1));
    case ZeroKind::kU4:
      return std::clamp(round_to_even(zero), 0.0f, max_code);
    case ZeroKind::kU8:
      return std::clamp(round_to_even(zero * 16.0f), 0.0f, 255.0f) / 16.0f;
    case ZeroKind::kF16:
      return float_from_f16(f16_from_float(std::clamp(zero, 0.0f, max_code)));
  }
  return 0.0f;
}

struct Best {
  float low, high, error;
  Grid grid;
};

}  // namespace

float stored_scale(float scale) {
  const float rounded = float_from_f16(f16_from_float(scale));
  return std::max(rounded, kSmallestScale);
}

ZeroKind stored_zero_kind(const GridOptions& options) {
  if (options.symmetric) return ZeroKind::kNone;
  return options.bits > 4 ? ZeroKind::kF16 : options.zero_kind;
}

Grid grid_of_range(float low, float high, const GridOptions& options) {
  low = std::min(low, 0.0f);
  high = std::max(high, 0.0f);
  if (options.symmetric) {
    const auto steps = static_cast<float>((1 << (options.bits - 1)) - 1);
    return {stored_scale(std::max(-low, high) / steps), stored_zero(0.0f, options)};
  }
  const float scale = stored_scale((high - low) / largest_code(options.bits));
  return {scale, stored_zero(-low / scale, options)};
}

float grid_error(const float* weights, const float* importance, int64_t count, Grid grid,
                 float max_code) {
  // Eight partial sums: the compiler may not reorder one float sum, but it may put these in a
  // vector.
  constexpr int64_t kLanes = 8;
  float sums[kLanes] = {};
  const float inverse = 1.0f / grid.scale;
  const auto term = [&](int64_t j) {
    const float code =
        round_to_even(std::min(std::max(weights[j] * inverse + grid.zero, 0.0f), max_code));
    const float error = value_of(code, grid) - weights[j];
    return importance == nullptr ? error * error : error * error * importance[j];
  };
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += term(j + lane);
  for (; j < count; ++j) sums[0] += term(j);
  float total = 0.0f;
  for (const float sum : sums) total += sum;
  return total;
}

Grid grid_of(const float* weights, const float* importance, int64_t count,
             const GridOptions& options) {
  float low = 0.0f, high = 0.0f;
  for (int64_t j = 0; j < count; ++j) {
    low = std::min(low, weights[j]);
    high = std::max(high, weights[j]);
  }
  Best best{low, high, 0.0f, grid_of_range(low, high, options)};
  if (!options.search) return best.grid;
  const float max_code = largest_code(options.bits);
  best.error = grid_error(weights, importance, count, best.grid, max_code);
  const auto consider = [&](float new_low, float new_high) {
    const Grid grid = grid_of_range(new_low, new_high, options);
    const float error = grid_error(weights, importance, count, grid, max_code);
    if (error < best.error) best = {new_low, new_high, error, grid};
  };
  for (int step = 1; step < kShrinkSteps; ++step) {
    const float factor = 1.0f - kShrinkStep * static_cast<float>(step);
    consider(low * factor, high * factor);
  }
  if (options.symmetric) return best.grid;
  // Then each end alone, the other where it was found best.
  const float found_low = best.low;
  for (int step = 0; step < kShrinkSteps; ++step)
    consider(found_low, high * (1.0f - kShrinkStep * static_cast<float>(step)));
  const float found_high = best.high;
  for (int step = 0; step < kShrinkSteps; ++step)
    consider(low * (1.0f - kShrinkStep * static_cast<float>(step)), found_high);
  return best.grid;
}

}  // namespace spear
