#include "spear/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace spear::ref {
namespace {

// Where head `kv_head` of token `position` stands in a paged cache.
int64_t cache_offset(const AttentionSequence& s, const KvLayerView& cache, int64_t kv_heads,
                     int64_t head_dim, int64_t position, int64_t kv_head) {
  const int64_t page = s.pages[position / cache.page_size];
  return ((page * kv_heads + kv_head) * cache.page_size + position % cache.page_size) * head_dim;
}

void attend_row(const AttentionArgs& a, const AttentionSequence& s, int64_t row, int64_t head) {
  const int64_t d = a.head_dim;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  const int64_t keys = s.context + row + 1;
  const int64_t at = ((s.first_row + row) * a.heads + head) * d;
  std::vector<double> scores(static_cast<size_t>(keys));
  double highest = -INFINITY;
  for (int64_t t = 0; t < keys; ++t) {
    const float* key = a.cache.keys + cache_offset(s, a.cache, a.kv_heads, d, t, kv_head);
    double dot = 0;
    for (int64_t j = 0; j < d; ++j) dot += static_cast<double>(a.q[at + j]) * key[j];
    scores[t] = dot * a.scale;
    highest = std::max(highest, scores[t]);
  }
  double total = 0;
  std::vector<double> sum(static_cast<size_t>(d), 0.0);
  for (int64_t t = 0; t < keys; ++t) {
    const float* value = a.cache.values + cache_offset(s, a.cache, a.kv_heads, d, t, kv_head);
    const double p = std::exp(scores[t] - highest);
    total += p;
    for (int64_t j = 0; j < d; ++j) sum[j] += p * value[j];
  }
  for (int64_t j = 0; j < d; ++j) a.y[at + j] = static_cast<float>(sum[j] / total);
}

}  // namespace

void attention(const AttentionArgs& args) {
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& s = args.sequences[i];
    for (int64_t row = 0; row < s.rows; ++row)
      for (int64_t head = 0; head < args.heads; ++head) attend_row(args, s, row, head);
  }
}

void kv_append(const KvAppendArgs& args) {
  const int64_t d = args.head_dim;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& s = args.sequences[i];
    for (int64_t row = 0; row < s.rows; ++row) {
      for (int64_t h = 0; h < args.kv_heads; ++h) {
        const int64_t from = ((s.first_row + row) * args.kv_heads + h) * d;
        const int64_t to = cache_offset(s, args.cache, args.kv_heads, d, s.context + row, h);
        std::memcpy(args.cache.keys + to, args.k + from, static_cast<size_t>(d) * sizeof(float));
        std::memcpy(args.cache.values + to, args.v + from, static_cast<size_t>(d) * sizeof(float));
      }
    }
  }
}

}  // namespace spear::ref
