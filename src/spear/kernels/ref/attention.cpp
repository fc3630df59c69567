#include "spear/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace spear::ref {
namespace {

// Which row of the cache holds head `kv_head` of token `position`.
int64_t cache_row(const AttentionSequence& s, const KvLayerView& cache, int64_t kv_heads,
                  int64_t position, int64_t kv_head) {
  const int64_t page = s.pages[position / cache.page_size];
  return (page * kv_heads + kv_head) * cache.page_size + position % cache.page_size;
}

// Where column j of a row stands. INT8 codes are interleaved (attention.h).
int64_t element_at(const KvLayerView& cache, bool key, int64_t row, int64_t j, int64_t head_dim) {
  if (cache.type != DType::kI8) return row * head_dim + j;
  const int64_t place = row % cache.page_size;
  const int64_t page = (row - place) * head_dim;
  if (key) return page + place / 16 * 16 * head_dim + j / 2 * 32 + place % 16 * 2 + j % 2;
  return page + place / 2 * 2 * head_dim + j * 2 + place % 2;
}

double cache_value(const KvLayerView& cache, bool key, int64_t row, int64_t j, int64_t head_dim) {
  const void* data = key ? cache.keys : cache.values;
  const int64_t at = element_at(cache, key, row, j, head_dim);
  switch (cache.type) {
    case DType::kF16:
      return static_cast<double>(float_from_f16(static_cast<const uint16_t*>(data)[at]));
    case DType::kI8:
      return static_cast<double>(static_cast<const int8_t*>(data)[at]) *
             (key ? cache.key_scales : cache.value_scales)[row];
    default:
      return static_cast<double>(static_cast<const float*>(data)[at]);
  }
}

// What INT8 does to keys and queries before they are rounded (attention.h).
std::vector<float> spread_columns(const float* x, int64_t head_dim) {
  std::vector<float> y(x, x + head_dim);
  const int64_t block = head_dim & -head_dim;
  for (int64_t width = 1; width < block; width *= 2)
    for (int64_t j = 0; j < head_dim; ++j) {
      if ((j & width) != 0) continue;
      const float a = y[j];
      const float b = y[j + width];
      y[j] = a + b;
      y[j + width] = a - b;
    }
  const auto norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(block)));
  for (float& value : y) value *= norm;
  return y;
}

// A row without a finite maximum gets a scale that spreads it.
void store_row(const KvLayerView& cache, bool key, int64_t row, int64_t head_dim,
               const float* from) {
  std::vector<float> spread;
  if (key && cache.type == DType::kI8) {
    spread = spread_columns(from, head_dim);
    from = spread.data();
  }
  float largest = 0;
  for (int64_t j = 0; j < head_dim; ++j) largest = std::max(largest, std::abs(from[j]));
  const float inverse = largest > 0 && std::isfinite(largest) ? 127.0f / largest : 0.0f;
  if (cache.type == DType::kI8)
    (key ? cache.key_scales : cache.value_scales)[row] = largest / 127.0f;
  void* data = key ? cache.keys : cache.values;
  for (int64_t j = 0; j < head_dim; ++j) {
    const int64_t at = element_at(cache, key, row, j, head_dim);
    if (cache.type == DType::kF16) {
      static_cast<uint16_t*>(data)[at] = f16_from_float(from[j]);
    } else if (cache.type == DType::kI8) {
      const double code = std::nearbyint(static_cast<double>(from[j]) * inverse);
      static_cast<int8_t*>(data)[at] =
          std::isnan(code) ? int8_t{0} : static_cast<int8_t>(std::clamp(code, -127.0, 127.0));
    } else {
      static_cast<float*>(data)[at] = from[j];
    }
  }
}

void attend_row(const AttentionArgs& a, const AttentionSequence& s, int64_t row, int64_t head) {
  const int64_t d = a.head_dim;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  const int64_t keys = s.context + row + 1;
  const int64_t at = ((s.first_row + row) * a.heads + head) * d;
  std::vector<double> scores(static_cast<size_t>(keys));
  std::vector<float> q(a.q + at, a.q + at + d);
  if (a.cache.type == DType::kI8) q = spread_columns(q.data(), d);
  double highest = -INFINITY;
  for (int64_t t = 0; t < keys; ++t) {
    const int64_t key = cache_row(s, a.cache, a.kv_heads, t, kv_head);
    double dot = 0;
    for (int64_t j = 0; j < d; ++j)
      dot += static_cast<double>(q[j]) * cache_value(a.cache, true, key, j, d);
    scores[t] = dot * a.scale;
    highest = std::max(highest, scores[t]);
  }
  double total = 0;
  std::vector<double> sum(static_cast<size_t>(d), 0.0);
  for (int64_t t = 0; t < keys; ++t) {
    const int64_t value = cache_row(s, a.cache, a.kv_heads, t, kv_head);
    const double p = std::exp(scores[t] - highest);
    total += p;
    for (int64_t j = 0; j < d; ++j) sum[j] += p * cache_value(a.cache, false, value, j, d);
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
        const int64_t to = cache_row(s, args.cache, args.kv_heads, s.context + row, h);
        store_row(args.cache, true, to, d, args.k + from);
        store_row(args.cache, false, to, d, args.v + from);
      }
    }
  }
}

}  // namespace spear::ref
