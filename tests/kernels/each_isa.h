// Runs a body for every instruction set's loops that this processor has, with one thread and with
// three.
#pragma once

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/with_loops.h"

namespace spear::test {

template <class Body>
void each_isa(Body body) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const cpu::SimdLoops* loops : cpu::usable_simd_loops()) {
      SCOPED_TRACE(loops->name);
      body(pool, *loops);
    }
  }
}

// exp_of() of kernels/cpu/simd/vector.inl: 2 units in the last place.
inline constexpr double kExpError = 4;  // in unit roundoffs

}  // namespace spear::test
