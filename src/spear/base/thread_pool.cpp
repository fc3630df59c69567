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

namespace spear {

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
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t count = 0;
  int64_t piece = 1;
  std::atomic<int64_t> next{0};
  uint64_t generation = 0;
  int busy = 0;
  bool stop = false;
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

  void work() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stop || generation != seen; });
      if (stop) return;
      seen = generation;
      lock.unlock();
      drain();
      lock.lock();
      if (--busy == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  size_ = threads > 0 ? threads : usable_processors();
  State* const state = state_.get();
  try {
    for (int i = 1; i < size_; ++i) state->threads.emplace_back([state] { state->work(); });
  } catch (const std::system_error&) {
    size_ = 1 + static_cast<int>(state->threads.size());  // no more were to be had: work with these
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
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
    state.running = true;
    state.body = &body;
    state.count = count;
    // A few pieces a thread, so that an uneven one does not leave the others idle.
    state.piece = std::max(grain, (count + 4 * size_ - 1) / (4 * size_));
    state.next = 0;
    state.error = nullptr;
    state.busy = size_ - 1;
    ++state.generation;
  }
  state.wake.notify_all();
  state.drain();
  std::unique_lock lock(state.mutex);
  state.done.wait(lock, [&] { return state.busy == 0; });
  state.running = false;
  if (state.error) std::rethrow_exception(state.error);
}

}  // namespace spear
