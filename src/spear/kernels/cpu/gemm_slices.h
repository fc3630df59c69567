// Cuts a product into slices of rows or columns of c, one or more a thread, and runs each on one
// thread of the pool. Slices write disjoint parts of c, so the result does not depend on which
// thread ran which slice.
#pragma once

#include <algorithm>
#include <cstddef>

#include "spear/base/thread_pool.h"
#include "spear/kernels/gemm.h"

namespace spear::cpu {

inline const void* advanced(const void* data, DType type, int64_t elements) {
  return static_cast<const std::byte*>(data) + elements * static_cast<int64_t>(size_of(type));
}

// Rows [begin, end) of c.
inline GemmArgs row_slice(GemmArgs g, int64_t begin, int64_t end) {
  g.a = advanced(g.a, g.a_type, g.transpose_a ? begin : begin * g.lda);
  g.c += begin * g.ldc;
  g.m = end - begin;
  return g;
}

// Columns [begin, end) of c.
inline GemmArgs column_slice(GemmArgs g, int64_t begin, int64_t end) {
  g.b = advanced(g.b, g.b_type, g.transpose_b ? begin * g.ldb : begin);
  g.c += begin;
  g.n = end - begin;
  return g;
}

// The longer side of c is cut, in multiples of 16, so that the operand both slices read is the
// smaller one.
template <class RunSlice>
void run_in_slices(const GemmArgs& g, ThreadPool* pool, RunSlice run_slice) {
  constexpr int64_t kUnit = 16;
  constexpr double kWorthWaking = 1e6;  // multiply-adds that take longer than waking a thread
  const double work =
      static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
  const bool by_rows = g.m >= g.n;
  const int64_t units = (std::max(g.m, g.n) + kUnit - 1) / kUnit;
  if (pool == nullptr || pool->size() == 1 || units == 1 || work < kWorthWaking) {
    run_slice(g);
    return;
  }
  const int64_t slices = std::min<int64_t>(units, pool->size());
  pool->parallel_for(slices, 1, [&](int64_t first, int64_t last) {
    for (int64_t slice = first; slice < last; ++slice) {
      const int64_t length = by_rows ? g.m : g.n;
      const int64_t begin = units * slice / slices * kUnit;
      const int64_t end = std::min(length, units * (slice + 1) / slices * kUnit);
      run_slice(by_rows ? row_slice(g, begin, end) : column_slice(g, begin, end));
    }
  });
}

}  // namespace spear::cpu
