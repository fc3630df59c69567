#include "spear/cli/memory_speed.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace spear {

double measure_memory_speed(ThreadPool& pool) {
  constexpr int64_t kWords = int64_t{32} << 20;  // 256 MiB: more than caches hold
  constexpr int kRounds = 3;
  const std::vector<uint64_t> memory(static_cast<size_t>(kWords), 1);
  std::atomic<uint64_t> sink = 0;  // keeps the sums from being left out
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(kWords, kWords / 64, [&](int64_t begin, int64_t end) {
      uint64_t sum[8] = {};
      for (int64_t i = begin; i + 8 <= end; i += 8)
        for (int64_t j = 0; j < 8; ++j) sum[j] += memory[static_cast<size_t>(i + j)];
      for (const uint64_t s : sum) sink += s;
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(kWords) * sizeof(uint64_t) / took.count());
  }
  return best;
}

}  // namespace spear
