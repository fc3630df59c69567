// How fast this machine reads memory with these threads, in bytes a second: the ceiling of
// decoding, which reads every weight once a token. Reads as the kernels do: huge pages, each thread
// its own part, their own loop.
#pragma once

#include <cstdint>
#include <memory>

#include "spear/base/thread_pool.h"

namespace spear {

class MemoryReader {
 public:
  // Room for `most` bytes.
  MemoryReader(ThreadPool& pool, size_t most);

  // Bytes a second when the first `bytes` <= most are read over and over: of what fits a cache a
  // part stays there, as it does of a model's weights. A few passes, after one that is not timed.
  double reread_speed(size_t bytes);

 private:
  struct Free {
    void operator()(uint8_t* p) const;
  };
  void read_once(size_t bytes);

  ThreadPool& pool_;
  size_t most_;
  std::unique_ptr<uint8_t, Free> memory_;
};

// The same of more bytes than caches hold.
double measure_memory_speed(ThreadPool& pool);

// 8-bit multiply-adds a second of all threads with their widest instructions, times two: the
// ceiling of a prompt.
double measure_byte_peak(ThreadPool& pool);

}  // namespace spear
