#include "spear/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/thread_team.h"

namespace spear {
namespace {

TEST(ThreadPool, VisitsEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 7, 8, 9, 1000})
      for (const int64_t grain : {0, 1, 3, 1000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          ASSERT_LT(begin, end);
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& visit : visits)
          ASSERT_EQ(visit, 1) << threads << " " << count << " " << grain;
      }
  }
}

TEST(ThreadPool, PiecesAreAtLeastTheGrainButTheLast) {
  ThreadPool pool(4);
  std::mutex mutex;
  std::multiset<int64_t> sizes;
  pool.parallel_for(103, 10, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    sizes.insert(end - begin);
  });
  sizes.erase(sizes.begin());
  for (const int64_t size : sizes) EXPECT_GE(size, 10);
}

TEST(ThreadPool, WorksOnSeveralThreadsAtOnce) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  // Both pieces wait for each other: this ends only if two threads run them.
  pool.parallel_for(2, 1, [&](int64_t, int64_t) {
    ++arrived;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (arrived < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPool, RethrowsAnExceptionAndStaysUsable) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    try {
      pool.parallel_for(100, 1, [&](int64_t begin, int64_t end) {
        if (begin <= 42 && 42 < end) throw std::runtime_error("forty-two");
      });
      FAIL() << "the exception was lost";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "forty-two");
    }
    std::atomic<int64_t> sum{0};
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
    EXPECT_EQ(sum, 100);
  }
}

TEST(ThreadPool, AnExceptionStopsTheRest) {
  ThreadPool pool(2);
  std::atomic<int> pieces{0};
  EXPECT_THROW(pool.parallel_for(1 << 20, 1,
                                 [&](int64_t, int64_t) {
                                   ++pieces;
                                   throw std::runtime_error("at once");
                                 }),
               std::runtime_error);
  EXPECT_LE(pieces, 2) << "each thread stops at its first piece";
}

TEST(ThreadPool, ANestedCallRunsSeriallyOnItsThread) {
  ThreadPool pool(4);
  std::atomic<int64_t> sum{0};
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto outer = std::this_thread::get_id();
      pool.parallel_for(100, 1, [&](int64_t from, int64_t to) {
        EXPECT_EQ(std::this_thread::get_id(), outer);
        sum += to - from;
      });
    }
  });
  EXPECT_EQ(sum, 800);
}

TEST(ThreadPool, ManyShortLoopsLoseNoWork) {
  ThreadPool pool(4);
  int64_t sum =
      0;  // written by disjoint pieces, read between loops: a race here is one the sanitizer sees
  std::vector<int64_t> values(64);
  for (int round = 0; round < 2000; ++round) {
    pool.parallel_for(64, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++values[static_cast<size_t>(i)];
    });
    sum += values[static_cast<size_t>(round % 64)];
  }
  EXPECT_EQ(sum, 2000 * 2001 / 2);
}

TEST(ThreadPool, DefaultsToTheUsableProcessors) {
  EXPECT_GE(usable_processors(), 1);
  EXPECT_LE(usable_processors(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_EQ(ThreadPool(0).size(), usable_processors());
  EXPECT_EQ(ThreadPool(-3).size(), usable_processors());
}

TEST(ThreadPool, ATeamRunsOnceOnEachThreadAndMayWaitForItself) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      TeamBarrier barrier(threads);
      TeamSignals signals(threads);
      std::vector<int> values(static_cast<size_t>(threads), 0);
      std::vector<int> sums(static_cast<size_t>(threads), 0);
      pool.run_team([&](int index, int size) {
        const auto own = static_cast<size_t>(index);
        for (int step = 1; step <= 30; ++step) {
          values[own] = step * (index + 1);
          if (step % 2 == 0)
            barrier.wait();
          else
            signals.raise(index, static_cast<uint64_t>(step)), signals.wait_for_all(step);
          int sum = 0;
          for (const int value : values) sum += value;
          sums[own] = sum;
          EXPECT_EQ(sum, step * size * (size + 1) / 2);
          barrier.wait();
        }
      });
      for (const int sum : sums) EXPECT_EQ(sum, 30 * threads * (threads + 1) / 2);
      std::atomic<int64_t> total{0};  // loops and teams take turns
      pool.parallel_for(100, 1, [&](int64_t begin, int64_t end) { total += end - begin; });
      EXPECT_EQ(total, 100);
    }
  }
}

}  // namespace
}  // namespace spear
