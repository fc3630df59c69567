// How fast this machine reads memory with these threads, in bytes a second: the ceiling of
// decoding, which reads every weight once a token. Takes about a quarter of a second.
#pragma once

#include "spear/base/thread_pool.h"

namespace spear {

double measure_memory_speed(ThreadPool& pool);

// The same with a buffer of `bytes` read over and over: of what fits a cache a part stays there, as
// it does of a model's weights. The median of the rounds of about a tenth of a second.
double measure_reread_speed(ThreadPool& pool, size_t bytes);

// 8-bit multiply-adds a second of all threads with their widest instructions, times two: the
// ceiling of a prompt.
double measure_byte_peak(ThreadPool& pool);

}  // namespace spear
