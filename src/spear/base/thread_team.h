// What the threads of one ThreadPool::run_team() wait for each other with: a barrier, and numbered
// signals of each thread. Waiting spins for some microseconds and then yields its processor, so
// that a team larger than the processors it has still gets through. All members may be called by
// any thread of the team.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include <sched.h>

namespace spear {

// One turn of a waiting loop; `turn` counts them.
inline void wait_a_moment(int& turn) {
  constexpr int kSpins = 4000;
  if (++turn > kSpins) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class TeamBarrier {
 public:
  explicit TeamBarrier(int size) : size_(size) {}
  // Returns once every thread of the team has called it as often as this one.
  void wait() {
    if (size_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int turn = 0; phase_.load(std::memory_order_acquire) == phase;) wait_a_moment(turn);
  }

 private:
  int size_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

// A thread says how far it is; the others wait for all to be as far.
class TeamSignals {
 public:
  explicit TeamSignals(int size)
      : size_(size), at_(std::make_unique<Line[]>(static_cast<size_t>(size))) {}
  void raise(int thread, uint64_t number) {
    at_[static_cast<size_t>(thread)].number.store(number, std::memory_order_release);
  }
  void wait_for_all(uint64_t number) const {
    for (int t = 0; t < size_; ++t)
      for (int turn = 0;
           at_[static_cast<size_t>(t)].number.load(std::memory_order_acquire) < number;)
        wait_a_moment(turn);
  }

 private:
  struct alignas(64) Line {
    std::atomic<uint64_t> number{0};
  };
  int size_;
  std::unique_ptr<Line[]> at_;
};

}  // namespace spear
