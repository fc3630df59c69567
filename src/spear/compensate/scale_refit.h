// Fits the stored scales (and real zero points) of a quantized matrix again after its codes are
// chosen, row by row, to minimise the error of the layer's output: (w − s(q − z))ᵀ·R·(w − s(q −
// z)). Linear least squares; with groups, one system per row over all of them. What comes out is
// rounded as it will be stored, and a row that would not gain keeps what it had. Called from one
// thread; works on the pool.
#pragma once

#include "spear/base/thread_pool.h"
#include "spear/model/quantized_model.h"

namespace spear {

struct ScaleRefit {
  double error_before = 0, error_after = 0;  // Σ over rows, in the metric
};

// `target` is what the codes stand for: the weight, less its compensator's product. Zero points
// move only where `zero_kind` stores real numbers and the matrix is per channel; they stay inside
// its range.
ScaleRefit refit_scales(const float* target,      // [n, k]
                        const float* covariance,  // [k, k]
                        ZeroKind zero_kind, ThreadPool& pool, UnpackedMatrix& quantized);

}  // namespace spear
