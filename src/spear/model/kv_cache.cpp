#include "spear/model/kv_cache.h"

#include <algorithm>
#include <numeric>

#include "spear/base/check.h"

namespace spear {

KvCache::KvCache(Backend& backend, const ModelConfig& config, int64_t sequences, int64_t capacity,
                 bool keep_layers)
    : sequences_(sequences),
      capacity_(capacity),
      pages_per_sequence_((capacity + kPageSize - 1) / kPageSize),
      kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      lengths_(static_cast<size_t>(sequences), 0) {
  const int64_t layers = keep_layers ? config.num_hidden_layers : 1;
  const auto bytes =
      static_cast<size_t>(sequences * pages_per_sequence_ * kPageSize * kv_heads_ * head_dim_) *
      sizeof(float);
  for (int64_t l = 0; l < layers; ++l) {
    keys_.push_back(backend.allocate(bytes));
    values_.push_back(backend.allocate(bytes));
  }
  for (int64_t s = 0; s < sequences; ++s) {
    std::vector<int32_t>& pages = pages_.emplace_back(static_cast<size_t>(pages_per_sequence_));
    std::iota(pages.begin(), pages.end(), static_cast<int32_t>(s * pages_per_sequence_));
  }
}

KvLayerView KvCache::layer(int32_t layer) const {
  const size_t slot = static_cast<size_t>(layer) % keys_.size();
  return {keys_[slot].as<float>(), values_[slot].as<float>(), kPageSize};
}

size_t KvCache::bytes() const {
  size_t total = 0;
  for (size_t i = 0; i < keys_.size(); ++i) total += keys_[i].bytes() + values_[i].bytes();
  return total;
}

AttentionSequence KvCache::append(int64_t sequence, int64_t first_row, int64_t rows) {
  expects(sequence >= 0 && sequence < sequences_ && rows > 0);
  int64_t& length = lengths_[static_cast<size_t>(sequence)];
  expects(length + rows <= capacity_);
  const AttentionSequence entry{first_row, rows, length,
                                pages_[static_cast<size_t>(sequence)].data()};
  length += rows;
  return entry;
}

void KvCache::reset_all() {
  std::fill(lengths_.begin(), lengths_.end(), 0);
}

void KvCache::truncate(int64_t sequence, int64_t length) {
  int64_t& current = lengths_[static_cast<size_t>(sequence)];
  expects(length >= 0 && length <= current);
  current = length;
}

}  // namespace spear
