// How fast this machine reads memory with these threads, in bytes a second: the ceiling of
// decoding, which reads every weight once a token. Takes about a quarter of a second.
#pragma once

#include "spear/base/thread_pool.h"

namespace spear {

double measure_memory_speed(ThreadPool& pool);

}  // namespace spear
