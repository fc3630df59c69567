// Chosen sequences and their teacher states, copied together in pieces for the reverse pass. One
// thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "spear/compensate/trainer.h"

namespace spear {

// Sequences gathered into one batch for the reverse pass.
class BatchBuffer {
 public:
  BatchBuffer(const TrainingData& data, int64_t micro_tokens, float temperature)
      : data_(data),
        together_(std::max<int64_t>(1, micro_tokens / data.tokens.length)),
        temperature_(temperature) {}

  // Calls body(batch, share of the sequences) on pieces of at most micro_tokens.
  template <class Body>
  void each(std::span<const int64_t> sequences, const Body& body) {
    const auto count = static_cast<int64_t>(sequences.size());
    for (int64_t first = 0; first < count; first += together_) {
      const int64_t piece = std::min(together_, count - first);
      ids_.clear();
      states_.clear();
      for (int64_t i = first; i < first + piece; ++i) {
        const auto ids = data_.tokens.row(sequences[static_cast<size_t>(i)]);
        const auto states = data_.teacher.row(sequences[static_cast<size_t>(i)]);
        ids_.insert(ids_.end(), ids.begin(), ids.end());
        states_.insert(states_.end(), states.begin(), states.end());
      }
      StudentBatch batch;
      batch.tokens = ids_;
      batch.sequences = piece;
      batch.length = data_.tokens.length;
      batch.teacher = states_;
      batch.temperature = temperature_;
      body(batch, static_cast<double>(piece) / static_cast<double>(count));
    }
  }

 private:
  const TrainingData& data_;
  int64_t together_;
  float temperature_;
  std::vector<int32_t> ids_;
  std::vector<uint16_t> states_;
};

}  // namespace spear
