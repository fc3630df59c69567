#include "spear/kernels/cpu/attention_plan.h"

#include <algorithm>
#include <cstddef>

#include "spear/kernels/cpu/attention_tiles.h"

namespace spear::cpu {
namespace {

// Keys of one chunk: a function of the sequence's own length, so that sums are made in the same
// order in every batch. Short contexts are cut finely, because three kv-heads on two threads would
// leave one of them idle half the time.
int64_t keys_per_chunk(int64_t keys) {
  return keys <= 512 ? 64 : keys <= 2048 ? 128 : kMostChunkKeys;
}

HeadRows paged_rows(const AttentionArgs& a, const AttentionSequence& s, const void* data,
                    const float* scales, int64_t kv_head) {
  const KvLayerView& c = a.cache;
  const int64_t first = kv_head * c.page_size;
  return {.base = static_cast<const std::byte*>(data) +
                  static_cast<size_t>(first * a.head_dim) * size_of(c.type),
          .row_stride = a.head_dim,
          .pages = s.pages,
          .page_size = c.page_size,
          .page_stride = a.kv_heads * c.page_size * a.head_dim,
          .type = c.type,
          .scales = c.type == DType::kI8 ? scales + first : nullptr,
          .scale_stride = a.kv_heads * c.page_size};
}

// Where row `token` of a sequence and the first head of `kv_head` stand in q and y.
int64_t query_offset(const AttentionArgs& a, const AttentionSequence& s, int64_t token,
                     int64_t kv_head) {
  return ((s.first_row + token) * a.heads + kv_head * (a.heads / a.kv_heads)) * a.head_dim;
}

}  // namespace

void AttentionPlan::cut_into_tiles(const AttentionArgs& a, int32_t sequence) {
  const AttentionSequence& s = a.sequences[sequence];
  const int64_t tile = tokens_per_tile(a.heads / a.kv_heads);
  for (int64_t token = 0; token < s.rows; token += tile) {
    const int64_t tokens = std::min(tile, s.rows - token);
    for (int32_t h = 0; h < a.kv_heads; ++h)
      items_.push_back({.sequence = sequence,
                        .kv_head = h,
                        .first = token,
                        .count = tokens,
                        .work = (s.context + token + tokens) * tokens});
  }
}

void AttentionPlan::cut_into_chunks(const AttentionArgs& a, int32_t sequence) {
  const AttentionSequence& s = a.sequences[sequence];
  const int64_t keys = s.context + s.rows;
  const int64_t chunk = keys_per_chunk(keys);
  const int64_t floats = s.rows * (a.heads / a.kv_heads) * loops_->partial_floats(a.head_dim);
  for (int32_t h = 0; h < a.kv_heads; ++h, ++joins_) {
    for (int64_t first = 0; first < keys; first += chunk, partials_ += floats)
      items_.push_back({.sequence = sequence,
                        .kv_head = h,
                        .first = first,
                        .count = std::min(chunk, keys - first),
                        .chunks = static_cast<int32_t>((keys + chunk - 1) / chunk),
                        .join = static_cast<int32_t>(joins_),
                        .partial = partials_,
                        .work = std::min(chunk, keys - first) * s.rows});
  }
}

void AttentionPlan::reserve(const AttentionArgs& a, int threads) {
  if (counter_count_ < joins_) {
    counters_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(joins_));
    counter_count_ = joins_;
  }
  partial_memory_.reserve(static_cast<size_t>(partials_) * sizeof(float));
  const int64_t group = a.heads / a.kv_heads;
  thread_floats_ = std::max(loops_->attention_scratch(tokens_per_tile(group) * group, a.head_dim),
                            loops_->attention_chunk_scratch(kFewRows * group, a.head_dim));
  thread_floats_ = (thread_floats_ + 15) / 16 * 16;
  thread_memory_.reserve(static_cast<size_t>(thread_floats_ * threads) * sizeof(float));
}

void AttentionPlan::cut(const AttentionArgs& a, int threads) {
  items_.clear();
  threads_ = threads;
  joins_ = partials_ = 0;
  bool tiles = false;
  for (int32_t i = 0; i < a.sequence_count; ++i) {
    const bool few = a.sequences[i].rows <= kFewRows;
    tiles = tiles || !few;
    few ? cut_into_chunks(a, i) : cut_into_tiles(a, i);
  }
  // Tiles differ much; the longest first lets the threads finish together. Chunks alone are nearly
  // equal and stay in the order in which they lie in memory.
  if (tiles)
    std::sort(items_.begin(), items_.end(),
              [](const Item& x, const Item& y) { return x.work > y.work; });
  reserve(a, threads);
}

void AttentionPlan::run_tile(const AttentionArgs& a, const Item& item, float* scratch) const {
  const AttentionSequence& s = a.sequences[item.sequence];
  const int64_t at = query_offset(a, s, item.first, item.kv_head);
  loops_->attention({.tokens = item.count,
                     .group = a.heads / a.kv_heads,
                     .head_dim = a.head_dim,
                     .first_keys = s.context + item.first + 1,
                     .q = a.q + at,
                     .token_stride = a.heads * a.head_dim,
                     .keys = paged_rows(a, s, a.cache.keys, a.cache.key_scales, item.kv_head),
                     .values = paged_rows(a, s, a.cache.values, a.cache.value_scales, item.kv_head),
                     .scale = a.scale,
                     .y = a.y + at,
                     .scratch = scratch});
}

// Keys of the chunk that a thread will read after item i: the others take those between.
const void* AttentionPlan::likely_next(const AttentionArgs& a, int64_t i) const {
  if (i + threads_ >= items()) return nullptr;
  const Item& item = items_[static_cast<size_t>(i + threads_)];
  if (item.chunks == 0) return nullptr;
  const KvLayerView& c = a.cache;
  const int64_t page = a.sequences[item.sequence].pages[item.first / c.page_size];
  const int64_t row = (page * a.kv_heads + item.kv_head) * c.page_size + item.first % c.page_size;
  return static_cast<const std::byte*>(c.keys) +
         static_cast<size_t>(row * a.head_dim) * size_of(c.type);
}

void AttentionPlan::run_chunk(const AttentionArgs& a, int64_t i, float* scratch) {
  const Item& item = items_[static_cast<size_t>(i)];
  const AttentionSequence& s = a.sequences[item.sequence];
  const int64_t group = a.heads / a.kv_heads;
  const int64_t at = query_offset(a, s, 0, item.kv_head);
  const int64_t token_stride = a.heads * a.head_dim;
  auto* partials = partial_memory_.as<float>();
  loops_->attention_chunk(
      {.rows = s.rows,
       .group = group,
       .head_dim = a.head_dim,
       .context = s.context,
       .first = item.first,
       .count = item.count,
       .q = a.q + at,
       .token_stride = token_stride,
       .keys = paged_rows(a, s, a.cache.keys, a.cache.key_scales, item.kv_head),
       .values = paged_rows(a, s, a.cache.values, a.cache.value_scales, item.kv_head),
       .scale = a.scale,
       .next = likely_next(a, i),
       .partial = partials + item.partial,
       .scratch = scratch});
  std::atomic<int32_t>& done = counters_[static_cast<size_t>(item.join)];
  if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < item.chunks) return;
  done.store(0, std::memory_order_relaxed);
  const int64_t chunk_floats = s.rows * group * loops_->partial_floats(a.head_dim);
  const int64_t chunk = item.first / keys_per_chunk(s.context + s.rows);
  loops_->merge_chunks({.rows = s.rows,
                        .group = group,
                        .head_dim = a.head_dim,
                        .chunks = item.chunks,
                        .partials = partials + item.partial - chunk * chunk_floats,
                        .chunk_stride = chunk_floats,
                        .y = a.y + at,
                        .token_stride = token_stride});
}

void AttentionPlan::run(const AttentionArgs& args, int64_t i, int thread) {
  const Item& item = items_[static_cast<size_t>(i)];
  float* scratch = thread_memory_.as<float>() + thread * thread_floats_;
  if (item.chunks == 0)
    run_tile(args, item, scratch);
  else
    run_chunk(args, i, scratch);
}

size_t AttentionPlan::scratch_bytes() const {
  return partial_memory_.bytes() + thread_memory_.bytes() + items_.capacity() * sizeof(Item) +
         static_cast<size_t>(counter_count_) * sizeof(std::atomic<int32_t>);
}

}  // namespace spear::cpu
