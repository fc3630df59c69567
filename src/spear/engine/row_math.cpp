#include "spear/engine/row_math.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace spear {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kBlock = 256;
constexpr float kLeast = -87.0f;

// e^x for x in [-87, 0]: 2^n · e^r with |r| ≤ ln 2 / 2, whose Taylor sum of degree 6 is off by less
// than 2e-8.
inline float exponential(float x) {
  const float clamped = x > kLeast ? x : kLeast;  // NaN too
  constexpr float kRound = 12582912.0f;           // 1.5 · 2^23: adding it rounds to an integer
  const float n = (clamped * 1.44269504f + kRound) - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  const float value = p * std::bit_cast<float>(exponent);
  return x > kLeast ? value : 0.0f;
}

// Adds up store(i) for a block, lane by lane.
template <class Value>
double sum_blocks(size_t count, Value value) {
  double total = 0;
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t end = begin + kBlock < count ? begin + kBlock : count;
    std::array<float, kLanes> lanes{};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (size_t l = 0; l < kLanes; ++l) lanes[l] += value(i + l);
    float sum = 0;
    for (; i < end; ++i) sum += value(i);
    for (const float lane : lanes) sum += lane;
    total += static_cast<double>(sum);
  }
  return total;
}

}  // namespace

Largest largest(std::span<const float> row) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  std::array<float, kLanes> lanes;
  lanes.fill(kNothing);
  size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes)
    for (size_t l = 0; l < kLanes; ++l) lanes[l] = row[i + l] > lanes[l] ? row[i + l] : lanes[l];
  float most = kNothing;
  for (; i < row.size(); ++i) most = row[i] > most ? row[i] : most;
  for (const float lane : lanes) most = lane > most ? lane : most;
  if (most == kNothing) return {};
  for (size_t at = 0; at < row.size(); ++at)
    if (row[at] == most) return {most, static_cast<int32_t>(at)};
  return {};
}

double exponentials(std::span<float> row, float shift, float scale) {
  float* values = row.data();
  return sum_blocks(row.size(), [=](size_t i) {
    const float e = exponential((values[i] - shift) * scale);
    values[i] = e;
    return e;
  });
}

double sum_of_exponentials(std::span<const float> row, float shift, float scale) {
  const float* values = row.data();
  return sum_blocks(row.size(), [=](size_t i) { return exponential((values[i] - shift) * scale); });
}

}  // namespace spear
