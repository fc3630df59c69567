// What storing does to a student's values: factors to INT8 or INT4 with a scale per rank row, zero
// points to sixteenths, scales, biases and gates to F16. In training the forward pass sees the
// rounded values and the gradient passes straight through to the real ones; at the end the rounded
// values are stored as they are. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/model/gradients_student.h"

namespace spear {

struct RoundingOptions {
  int32_t factor_bits = 8;      // 4, 8, 16
  KindSet kinds = ~KindSet{0};  // kinds not in the set pass unchanged
};

// The values that store_student() with the same kinds would leave: rounding them again changes
// nothing.
std::vector<float> rounded(const StudentModel& student, std::span<const float> values,
                           const RoundingOptions& options);

// Zero points outside of what can be stored are brought back, so that they do not drift where no
// gradient sees them.
void keep_in_range(const StudentModel& student, std::span<float> values);

}  // namespace spear
