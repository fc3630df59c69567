// Round to nearest: each group of weights on the grid of its own range, no data needed. With
// GridOptions::search the range is shrunk where that lowers the squared error, weighted by the mean
// square of each input when it is known.
#pragma once

#include "spear/base/thread_pool.h"
#include "spear/model/quantized_model.h"
#include "spear/quantize/grid.h"

namespace spear {

// `importance` is the diagonal of the input's covariance, or null. options.group must divide k.
UnpackedMatrix rtn(const float* weight,  // [n, k]
                   int64_t n, int64_t k, const GridOptions& options,
                   const float* importance,  // [k] or null
                   ThreadPool& pool);

// The grids alone: an UnpackedMatrix with scales and zeros set and all codes 0.
UnpackedMatrix fit_grids(const float* weight,  // [n, k]
                         int64_t n, int64_t k, const GridOptions& options,
                         const float* importance,  // [k] or null
                         ThreadPool& pool);

}  // namespace spear
