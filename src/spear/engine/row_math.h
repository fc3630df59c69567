// Loops over one row of logits, written so that a compiler's vectorizer takes them. NaN counts as
// minus infinity throughout. Pure functions, every thread.
#pragma once

#include <cstdint>
#include <span>

namespace spear {

struct Largest {
  float value = 0;
  int32_t index = -1;  // the first of equals; -1: nothing is above minus infinity
};
Largest largest(std::span<const float> row);

// row[i] = e^((row[i] - shift) · scale), at most about 2e-7 off relatively, 0 below e^-87; returns
// the sum, in double over blocks of 256. shift is the largest value, scale > 0.
double exponentials(std::span<float> row, float shift, float scale);
// The same sum without the row being changed.
double sum_of_exponentials(std::span<const float> row, float shift, float scale);

}  // namespace spear
