#include "spear/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sched.h>

#include "spear/base/check.h"
#include "spear/base/thread_team.h"

namespace spear {
namespace {

// About 30 microseconds of spinning: more than lies between two operations of a step, less than
// anybody notices.
constexpr int kIdleTurns = 1500;

}  // namespace

int usable_processors() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
  std::ifstream limit("/sys/fs/cgroup/cpu.max");  // "max 100000" or "150000 100000"
  std::string quota;
  double period = 0;
  if (limit >> quota >> period && quota != "max" && period > 0)
    count = std::min(count, static_cast<int>(std::ceil(std::stod(quota) / period)));
  return std::max(count, 1);
}

struct ThreadPool::State {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable done;
  // The work at hand: written before `generation` counts up, read after it was seen to.
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  const std::function<void(int, int)>* team = nullptr;  // or null: a loop
  int64_t count = 0;
  int64_t piece = 1;
  std::atomic<int64_t> next{0};
  std::atomic<uint64_t> generation{0};
  std::atomic<int> busy{0};
  std::atomic<bool> stop{false};
  bool running = false;
  std::exception_ptr error;

  void drain() {
    try {
      for (;;) {
        const int64_t begin = next.fetch_add(piece);
        if (begin >= count) return;
        (*body)(begin, std::min(begin + piece, count));
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
  }

  bool changed(uint64_t seen) const {
    return stop.load(std::memory_order_acquire) ||
           generation.load(std::memory_order_acquire) != seen;
  }

  void work(int index, const int& size) {
    for (uint64_t seen = 0;;) {
      for (int turn = 0; turn < kIdleTurns && !changed(seen);) wait_a_moment(turn);
      if (!changed(seen)) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return changed(seen); });
      }
      if (stop.load(std::memory_order_acquire)) return;
      seen = generation.load(std::memory_order_acquire);
      if (team != nullptr)
        (*team)(index, size);
      else
        drain();
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard lock(mutex);
        done.notify_one();
      }
    }
  }

  // Wakes the workers for what was set up; call with the mutex held.
  void begin(int size) {
    running = true;
    error = nullptr;
    busy.store(size - 1, std::memory_order_relaxed);
    generation.fetch_add(1, std::memory_order_release);
    wake.notify_all();
  }

  void finish() {
    for (int turn = 0; turn < kIdleTurns && busy.load(std::memory_order_acquire) != 0;)
      wait_a_moment(turn);
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return busy.load(std::memory_order_acquire) == 0; });
    running = false;
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  size_ = threads > 0 ? threads : usable_processors();
  State* const state = state_.get();
  try {
    for (int i = 1; i < size_; ++i)
      state->threads.emplace_back([state, i, this] { state->work(i, size_); });
  } catch (const std::system_error&) {
    size_ = 1 + static_cast<int>(state->threads.size());  // no more were to be had: work with these
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop.store(true, std::memory_order_release);
  }
  state_->wake.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  State& state = *state_;
  {
    std::unique_lock lock(state.mutex);
    if (size_ == 1 || count <= grain || state.running) {
      lock.unlock();
      body(0, count);
      return;
    }
    state.body = &body;
    state.team = nullptr;
    state.count = count;
    // A few pieces a thread, so that an uneven one does not leave the others idle.
    state.piece = std::max(grain, (count + 4 * size_ - 1) / (4 * size_));
    state.next = 0;
    state.begin(size_);
  }
  state.drain();
  state.finish();
  if (state.error) std::rethrow_exception(state.error);
}

void ThreadPool::run_team(const std::function<void(int, int)>& body) {
  State& state = *state_;
  {
    const std::lock_guard lock(state.mutex);
    expects(!state.running);
    state.team = &body;
    state.begin(size_);
  }
  body(0, size_);
  state.finish();
}

}  // namespace spear
