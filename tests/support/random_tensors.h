// Tensors filled from a seed, the same on every machine. Any thread, each with its own Rng.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/base/rng.h"

namespace spear::test {

std::vector<float> normal_values(int64_t count, Rng& rng, float scale = 1);
std::vector<float> uniform_values(int64_t count, Rng& rng, float low, float high);
// Activations as a language model has them: normal, with one column in `every` larger by `factor`.
std::vector<float> outlier_values(int64_t rows, int64_t columns, Rng& rng, int64_t every = 32,
                                  float factor = 20);
// The same values rounded to the type and back, for tests that want exact inputs.
std::vector<float> rounded_to_bf16(std::vector<float> values);
std::vector<float> rounded_to_f16(std::vector<float> values);

}  // namespace spear::test
