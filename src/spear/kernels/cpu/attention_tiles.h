// How attention is cut for the threads: tiles of query rows, taken one by one because they are
// uneven.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"

namespace spear::cpu {

// Enough query rows to pay for copying a block of keys and values, few enough to stay in a core's
// cache.
inline int64_t tokens_per_tile(int64_t group) {
  constexpr int64_t kTileRows = 126;  // a multiple of the micro-kernel's 6
  return std::max<int64_t>(1, kTileRows / group);
}

// body(item, scratch) for each item, each thread with scratch memory of its own.
template <class Body>
void run_one_by_one(ThreadPool& pool, int64_t items, int64_t scratch_floats, Body body) {
  std::atomic<int64_t> next{0};
  pool.parallel_for(std::min<int64_t>(items, pool.size()), 1, [&](int64_t, int64_t) {
    HostBuffer scratch(static_cast<size_t>(scratch_floats) * sizeof(float));
    for (int64_t i = next++; i < items; i = next++) body(i, scratch.as<float>());
  });
}

}  // namespace spear::cpu
