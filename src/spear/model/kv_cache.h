// The paged KV cache of a decoder: keys and values of each layer in pages of kPageSize tokens, F32,
// F16 or INT8 (with one scale for each token of a kv-head). Two ways to use one: sequences in slots
// 0 .. n - 1 whose pages the cache hands out itself, or bare pages whose owner keeps block tables.
// One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/model/config.h"

namespace spear {

class KvCache {
 public:
  static constexpr int64_t kPageSize = 64;

  // Room for `sequences` sequences of `capacity` tokens each. `keep_layers`: false keeps one layer
  // only, which every layer overwrites: enough when whole sequences are run at once and nothing is
  // decoded after them.
  KvCache(Backend& backend, const ModelConfig& config, int64_t sequences, int64_t capacity,
          bool keep_layers, DType type = DType::kF32);

  // Bare pages 0 .. pages - 1 of every layer for an engine with its own block tables: it fills
  // AttentionSequence itself, and the functions on sequences below may not be called. Throws
  // Failure where the backend has no such cache.
  static KvCache bare_pages(Backend& backend, const ModelConfig& config, int64_t pages, DType type);
  // Pages that so many tokens of one sequence fill or begin.
  static int64_t pages_for(int64_t tokens) { return (tokens + kPageSize - 1) / kPageSize; }
  // Bytes of one page over all layers: what a memory budget is divided by.
  static size_t page_bytes(const ModelConfig& config, DType type);

  [[nodiscard]] const KvLayerView& layer(int32_t layer) const {
    return views_[static_cast<size_t>(layer)];
  }
  // One view a layer of the model, as a compiled step wants them.
  [[nodiscard]] std::span<const KvLayerView> layers() const { return views_; }
  [[nodiscard]] DType type() const { return type_; }
  [[nodiscard]] int64_t pages() const { return page_count_; }
  [[nodiscard]] size_t bytes() const;
  // Page `to` becomes a copy of page `from` in every layer.
  void copy_page(int32_t from, int32_t to);

  [[nodiscard]] int64_t capacity() const { return capacity_; }
  [[nodiscard]] int64_t length(int64_t sequence) const {
    return lengths_[static_cast<size_t>(sequence)];
  }
  // The entry of a batch for `rows` new tokens of a sequence that start at `first_row`; grows its
  // length.
  AttentionSequence append(int64_t sequence, int64_t first_row, int64_t rows);
  void reset(int64_t sequence) { lengths_[static_cast<size_t>(sequence)] = 0; }
  void reset_all();
  // Forgets all but the first `length` tokens of a sequence.
  void truncate(int64_t sequence, int64_t length);

 private:
  struct Layer {
    DeviceBuffer keys, values, key_scales, value_scales;
  };

  KvCache(Backend& backend, const ModelConfig& config, int64_t layers, int64_t pages, DType type);

  Backend* backend_;
  DType type_;
  int64_t page_count_, kv_heads_, head_dim_;
  int64_t sequences_ = 0, capacity_ = 0, pages_per_sequence_ = 0;
  std::vector<Layer> layers_;                // the kept ones
  std::vector<KvLayerView> views_;           // of the model's layers
  std::vector<std::vector<int32_t>> pages_;  // [sequences][pages_per_sequence]
  std::vector<int64_t> lengths_;
};

// "f32", "f16", "int8": how options and messages name the type of a cache.
const char* kv_type_name(DType type);

}  // namespace spear
