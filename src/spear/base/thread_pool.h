// A fixed set of worker threads for data-parallel loops. The caller works too, so a pool of n uses
// n - 1 threads. parallel_for and run_team may be called from one thread at a time; a parallel_for
// from inside a body runs serially on that thread. Idle workers spin for some microseconds, then
// sleep: none burns a core between two pieces of work.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace spear {

class ThreadPool {
 public:
  // threads <= 0: the processors this process may use (affinity and cgroup quota respected).
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int size() const { return size_; }

  // Calls body(begin, end) on pieces of [0, count) of at least `grain`, until all are done.
  // An exception of a body is rethrown here after the others have stopped.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end)>& body);

  // Calls body(index, size()) once on each thread, all at the same time: they may wait for each
  // other (base/thread_team.h). The body must not throw. Not from inside a body.
  void run_team(const std::function<void(int index, int size)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int size_ = 1;
};

// Processors usable by this process: sched_getaffinity, cut by the cgroup CPU quota; at least 1.
int usable_processors();

}  // namespace spear
