#include "spear/cli/memory_speed.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include <sys/mman.h>

#include "spear/base/check.h"
#include "spear/kernels/cpu/packed/packed_select.h"

namespace spear {

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kStep = 256;  // bytes that the kernels' loop takes at a time

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

void MemoryReader::Free::operator()(uint8_t* p) const {
  std::free(p);
}

MemoryReader::MemoryReader(ThreadPool& pool, size_t most) : pool_(pool), most_(most) {
  const size_t whole = (most + kHugePage - 1) / kHugePage * kHugePage;
  memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, whole)));
  if (memory_ == nullptr) throw std::bad_alloc();
  (void)madvise(memory_.get(), whole, MADV_HUGEPAGE);  // refused: slower, as the kernels are then
  std::memset(memory_.get(), 1, whole);
}

void MemoryReader::read_once(size_t bytes) {
  const cpu::PackedKernels& kernels = *cpu::usable_packed_kernels().front();
  pool_.run_team([&](int index, int size) {
    const size_t part = bytes / static_cast<size_t>(size) / kStep * kStep;
    volatile uint64_t sink = kernels.read_through(memory_.get() + part * static_cast<size_t>(index),
                                                  static_cast<int64_t>(part));
    (void)sink;
  });
}

double MemoryReader::reread_speed(size_t bytes) {
  expects(bytes <= most_);
  constexpr int kPasses = 4;
  read_once(bytes);
  const auto start = Clock::now();
  for (int i = 0; i < kPasses; ++i) read_once(bytes);
  return kPasses * static_cast<double>(bytes) / seconds_since(start);
}

double measure_memory_speed(ThreadPool& pool) {
  constexpr size_t kBytes = size_t{256} << 20;
  return MemoryReader(pool, kBytes).reread_speed(kBytes);
}

double measure_byte_peak(ThreadPool& pool) {
  const cpu::PackedKernels& kernels = *cpu::usable_packed_kernels().front();
  constexpr int64_t kRounds = 200'000;
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    std::atomic<int64_t> products = 0;
    const auto start = Clock::now();
    pool.run_team([&](int, int) {
      int32_t sink[64] = {};
      products += static_cast<int64_t>(kernels.dot_chain(kRounds, sink));
    });
    best = std::max(best, 2.0 * static_cast<double>(products) / seconds_since(start));
  }
  return best;
}

}  // namespace spear
