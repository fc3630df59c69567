#include "spear/model/kv_cache.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "spear/base/check.h"

namespace spear {
namespace {

// Rows (one token of one kv-head) in a page of one layer; INT8 has a scale for each.
int64_t page_rows(int64_t kv_heads) {
  return KvCache::kPageSize * kv_heads;
}

}  // namespace

const char* kv_type_name(DType type) {
  return type == DType::kI8 ? "int8" : name_of(type);
}

KvCache::KvCache(Backend& backend, const ModelConfig& config, int64_t layers, int64_t pages,
                 DType type)
    : backend_(&backend),
      type_(type),
      page_count_(pages),
      kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim) {
  if (!backend.supports_kv(type))
    throw Failure(ErrorCode::kUnsupported, std::string("KV type ") + kv_type_name(type) +
                                               " is not available on this device (" +
                                               std::string(backend.name()) + ")");
  if (type == DType::kI8 && head_dim_ > 512)  // sums of products are 32 bits wide
    throw Failure(
        ErrorCode::kUnsupported,
        "KV type int8 takes heads of up to 512; the model's have " + std::to_string(head_dim_));
  const auto rows = static_cast<size_t>(pages * page_rows(kv_heads_));
  const size_t bytes = rows * static_cast<size_t>(head_dim_) * size_of(type);
  const size_t scale_bytes = type == DType::kI8 ? rows * sizeof(float) : 0;
  for (int64_t l = 0; l < layers; ++l)
    layers_.push_back({backend.allocate(bytes), backend.allocate(bytes),
                       backend.allocate(scale_bytes), backend.allocate(scale_bytes)});
  for (int32_t l = 0; l < config.num_hidden_layers; ++l) {
    const Layer& at = layers_[static_cast<size_t>(l) % layers_.size()];
    views_.push_back({at.keys.as<void>(), at.values.as<void>(), kPageSize, type_,
                      at.key_scales.as<float>(), at.value_scales.as<float>()});
  }
}

KvCache::KvCache(Backend& backend, const ModelConfig& config, int64_t sequences, int64_t capacity,
                 bool keep_layers, DType type)
    : KvCache(backend, config, keep_layers ? config.num_hidden_layers : 1,
              sequences * pages_for(capacity), type) {
  sequences_ = sequences;
  capacity_ = capacity;
  pages_per_sequence_ = pages_for(capacity);
  lengths_.assign(static_cast<size_t>(sequences), 0);
  for (int64_t s = 0; s < sequences; ++s) {
    std::vector<int32_t>& pages = pages_.emplace_back(static_cast<size_t>(pages_per_sequence_));
    std::iota(pages.begin(), pages.end(), static_cast<int32_t>(s * pages_per_sequence_));
  }
}

KvCache KvCache::bare_pages(Backend& backend, const ModelConfig& config, int64_t pages,
                            DType type) {
  expects(pages > 0);
  return KvCache(backend, config, config.num_hidden_layers, pages, type);
}

size_t KvCache::page_bytes(const ModelConfig& config, DType type) {
  const auto rows = static_cast<size_t>(page_rows(config.num_key_value_heads));
  const size_t row =
      static_cast<size_t>(config.head_dim) * size_of(type) + (type == DType::kI8 ? 4 : 0);
  return 2 * rows * row * static_cast<size_t>(config.num_hidden_layers);
}

size_t KvCache::bytes() const {
  size_t total = 0;
  for (const Layer& layer : layers_)
    total += layer.keys.bytes() + layer.values.bytes() + layer.key_scales.bytes() +
             layer.value_scales.bytes();
  return total;
}

void KvCache::copy_page(int32_t from, int32_t to) {
  expects(from >= 0 && from < page_count_ && to >= 0 && to < page_count_ && from != to);
  const int64_t rows = page_rows(kv_heads_);
  // Pages are copied as floats: 64 rows of any type are whole ones.
  const auto floats =
      static_cast<int64_t>(static_cast<size_t>(rows * head_dim_) * size_of(type_) / sizeof(float));
  const auto copy = [&](const DeviceBuffer& buffer, int64_t count) {
    auto* data = buffer.as<float>();
    backend_->copy(data + from * count, data + to * count, count);
  };
  for (const Layer& layer : layers_) {
    copy(layer.keys, floats);
    copy(layer.values, floats);
    if (type_ != DType::kI8) continue;
    copy(layer.key_scales, rows);
    copy(layer.value_scales, rows);
  }
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
