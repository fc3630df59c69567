#include "spear/cli/memory_speed.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "spear/kernels/cpu/packed/packed_select.h"

namespace spear {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint64_t sum_of(const uint64_t* words, int64_t count) {
  uint64_t sums[16] = {};
  for (int64_t i = 0; i + 16 <= count; i += 16)
    for (int64_t j = 0; j < 16; ++j) sums[j] += words[i + j];
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

// Every thread reads its own part, the same in each round.
void read_once(ThreadPool& pool, const std::vector<uint64_t>& memory, std::atomic<uint64_t>& sink) {
  const auto words = static_cast<int64_t>(memory.size());
  const int64_t part = (words + pool.size() - 1) / pool.size();
  pool.parallel_for(pool.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = std::min(words, i * part);
      sink += sum_of(memory.data() + first, std::min(words, first + part) - first);
    }
  });
}

}  // namespace

double measure_memory_speed(ThreadPool& pool) {
  constexpr size_t kWords = size_t{32} << 20;  // 256 MiB: more than caches hold
  const std::vector<uint64_t> memory(kWords, 1);
  std::atomic<uint64_t> sink = 0;  // keeps the sums from being left out
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const auto start = Clock::now();
    read_once(pool, memory, sink);
    best = std::max(best, static_cast<double>(kWords * sizeof(uint64_t)) / seconds_since(start));
  }
  return best;
}

double measure_reread_speed(ThreadPool& pool, size_t bytes) {
  const std::vector<uint64_t> memory(std::max<size_t>(bytes / sizeof(uint64_t), 1024), 1);
  std::atomic<uint64_t> sink = 0;
  read_once(pool, memory, sink);
  std::vector<double> rounds;
  const auto begin = Clock::now();
  while (rounds.size() < 3 || (rounds.size() < 1000 && seconds_since(begin) < 0.1)) {
    const auto start = Clock::now();
    read_once(pool, memory, sink);
    rounds.push_back(seconds_since(start));
  }
  std::sort(rounds.begin(), rounds.end());
  return static_cast<double>(memory.size() * sizeof(uint64_t)) / rounds[rounds.size() / 2];
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
