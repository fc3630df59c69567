#include "support/random_tensors.h"

#include "spear/base/dtype.h"

namespace spear::test {

std::vector<float> normal_values(int64_t count, Rng& rng, float scale) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = scale * static_cast<float>(rng.normal());
  return values;
}

std::vector<float> uniform_values(int64_t count, Rng& rng, float low, float high) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = low + (high - low) * static_cast<float>(rng.uniform());
  return values;
}

std::vector<float> outlier_values(int64_t rows, int64_t columns, Rng& rng, int64_t every,
                                  float factor) {
  std::vector<float> values = normal_values(rows * columns, rng);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = every / 2; column < columns; column += every)
      values[static_cast<size_t>(row * columns + column)] *= factor;
  return values;
}

std::vector<float> rounded_to_bf16(std::vector<float> values) {
  for (float& value : values) value = float_from_bf16(bf16_from_float(value));
  return values;
}

std::vector<float> rounded_to_f16(std::vector<float> values) {
  for (float& value : values) value = float_from_f16(f16_from_float(value));
  return values;
}

}  // namespace spear::test
