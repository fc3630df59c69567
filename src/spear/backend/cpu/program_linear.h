// One job of a compiled step on the calling thread of a team, in two ways: few tokens, where each
// thread reads its share of the weights for all of them, and many, where each thread keeps tokens
// of its own and reads all weights. The caller puts the barrier behind it.
#pragma once

#include "spear/backend/cpu/program_memory.h"
#include "spear/base/thread_team.h"

namespace spear {

// What a thread works with.
struct TeamMember {
  int index = 0, size = 1;
  const cpu::PackedKernels* kernels = nullptr;
  TeamBarrier* barrier = nullptr;
  TeamSignals* signals = nullptr;  // raised when a thread's share of A x is there
  uint64_t* signal = nullptr;      // the number that was raised last by this thread
  SharedMemory* shared = nullptr;
  ThreadMemory* own = nullptr;
};

// Rows in and out of a job.
struct JobRows {
  const float* x = nullptr;  // [m, x_stride]
  int64_t x_stride = 0;
  float* y = nullptr;  // [m, y_stride]
  int64_t y_stride = 0;
  float eps = 0;
  float* y2 = nullptr;  // [m, y2_stride], for parts whose outputs stand apart
  int64_t y2_stride = 0;
  bool compensated = true;        // false: as if the job's modules had no compensators
  const uint8_t* bare = nullptr;  // [m], 1: no compensators for this row; null: for none
};

// Up to this many tokens each thread quantizes all of them for itself, which saves a barrier.
inline constexpr int64_t kTokensForEach = 2;
// Own tokens that pass through a layer together, so that what lies between stays in a core's cache.
inline constexpr int64_t kTokensAtATime = 60;

// All threads call it with the same rows [0, m); nobody may read y before the next barrier.
void run_shared(const TeamMember& me, const Job& job, const JobRows& rows, int64_t m);

// `count` <= kTokensAtATime tokens of this thread alone. `rank_panels`: A widened by the caller.
void run_own(const TeamMember& me, const Job& job, const JobRows& rows, int64_t count,
             const uint8_t* rank_panels);
// Bytes of a job's widened A, and the widening.
size_t rank_panels_bytes(const Job& job);
void widen_ranks(const TeamMember& me, const Job& job, uint8_t* panels);

}  // namespace spear
