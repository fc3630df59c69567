// GPTQ (Frantar et al., 2022): columns are rounded one after another, and each error is spread over
// the columns that are still free so that the output changes least under the covariance R = E[x·xᵀ]
// of the inputs. The factor of R is computed once and shared by the modules that read the same
// input. Called from one thread; works on the pool.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "spear/base/thread_pool.h"
#include "spear/model/quantized_model.h"
#include "spear/quantize/grid.h"

namespace spear {

// The upper triangular U with UᵀU = (R + damping)⁻¹, columns in the order in which they will be
// rounded.
struct GptqFactor {
  int64_t k = 0;
  bool activation_order = false;
  std::vector<int32_t> order;     // [k]: order[i] is the column rounded i-th
  std::vector<float> upper;       // [k, k]
  std::vector<float> importance;  // [k]: the diagonal of R, columns as stored
  double damping = 0;             // share of the mean diagonal that was added
};

// Adds `damping` of the mean diagonal, ten times more after each failed Cholesky factorisation up
// to the whole of it; then throws Failure naming `where`. Dead inputs (zero on the diagonal) are
// rounded plainly: nothing is known of them, and nothing is lost. `covariance` is symmetric.
GptqFactor make_gptq_factor(const float* covariance,  // [k, k]
                            int64_t k, double damping, bool activation_order,
                            std::string_view where);

// With an activation order every grid comes from the original weights (static groups); without one,
// a group's grid comes from the weights as they stand when its first column is reached. With
// options.search, ranges a little narrower and wider are swept too and every row keeps its cheapest
// (not with moving groups).
UnpackedMatrix gptq(const float* weight,  // [n, k]
                    int64_t n, const GptqFactor& factor, const GridOptions& options,
                    ThreadPool& pool);

}  // namespace spear
