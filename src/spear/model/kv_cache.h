// The paged KV cache of a decoder: F32 keys and values of each layer in pages of kPageSize tokens,
// and the block tables of its sequences. Sequences are slots 0 .. n - 1; pages are reserved when a
// slot grows. One thread at a time.
#pragma once

#include <cstdint>
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
          bool keep_layers);

  [[nodiscard]] KvLayerView layer(int32_t layer) const;
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  [[nodiscard]] int64_t length(int64_t sequence) const {
    return lengths_[static_cast<size_t>(sequence)];
  }
  [[nodiscard]] size_t bytes() const;

  // The entry of a batch for `rows` new tokens of a sequence that start at `first_row`; grows its
  // length.
  AttentionSequence append(int64_t sequence, int64_t first_row, int64_t rows);
  void reset(int64_t sequence) { lengths_[static_cast<size_t>(sequence)] = 0; }
  void reset_all();
  // Forgets all but the first `length` tokens of a sequence.
  void truncate(int64_t sequence, int64_t length);

 private:
  int64_t sequences_, capacity_, pages_per_sequence_, kv_heads_, head_dim_;
  std::vector<DeviceBuffer> keys_, values_;  // one per kept layer
  std::vector<std::vector<int32_t>> pages_;  // [sequences][pages_per_sequence]
  std::vector<int64_t> lengths_;
};

}  // namespace spear
