// Attention of a batch as a list of items, for a step that runs inside a thread team of its own.
// The list depends on rows, contexts and heads alone, so that one cut serves every layer of a step.
// A sequence of few rows is cut along its context, whatever the number of threads: results do not
// depend on batch mates or threads. cut() on one thread; then any threads may run() items at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "spear/base/host_buffer.h"
#include "spear/kernels/attention.h"
#include "spear/kernels/cpu/simd/select.h"

namespace spear::cpu {

class AttentionPlan {
 public:
  // Sequences of up to this many rows are read without transposing their keys.
  static constexpr int64_t kFewRows = 8;

  explicit AttentionPlan(const SimdLoops& loops = simd_loops()) : loops_(&loops) {}

  // Allocates only where a batch is larger than all before. Pointers of `args` other than
  // `sequences` are not looked at. `threads`: how many will call run().
  void cut(const AttentionArgs& args, int threads);
  // In the order in which they should be started: long ones first.
  [[nodiscard]] int64_t items() const { return static_cast<int64_t>(items_.size()); }
  // Item i on thread `thread` of 0 .. threads - 1. `args` has the sequences that were cut; y is
  // complete when every item has run, in any order. Allocates nothing.
  void run(const AttentionArgs& args, int64_t i, int thread);

  [[nodiscard]] size_t scratch_bytes() const;

 private:
  // A tile of query rows with all their keys, or a chunk of keys with all (few) query rows.
  struct Item {
    int32_t sequence = 0, kv_head = 0;
    int64_t first = 0, count = 0;  // tokens of the tile, or keys of the chunk
    int32_t chunks = 0;            // of this sequence and head; 0: a tile
    int32_t join = 0;              // which counter they share
    int64_t partial = 0;           // of this chunk, in floats
    int64_t work = 0;
  };

  void cut_into_tiles(const AttentionArgs& args, int32_t sequence);
  void cut_into_chunks(const AttentionArgs& args, int32_t sequence);
  void reserve(const AttentionArgs& args, int threads);
  void run_tile(const AttentionArgs& args, const Item& item, float* scratch) const;
  void run_chunk(const AttentionArgs& args, int64_t i, float* scratch);
  const void* likely_next(const AttentionArgs& args, int64_t i) const;

  const SimdLoops* loops_;
  int threads_ = 1;
  std::vector<Item> items_;
  int64_t joins_ = 0, partials_ = 0, thread_floats_ = 0;
  int64_t counter_count_ = 0;
  std::unique_ptr<std::atomic<int32_t>[]> counters_;  // chunks done; back at 0 after the last
  HostBuffer partial_memory_, thread_memory_;
};

}  // namespace spear::cpu
