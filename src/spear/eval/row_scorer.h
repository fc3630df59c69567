// Scores rows of final hidden states over the vocabulary, a chunk of rows at a time, so that [rows,
// vocab] never exists whole. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/model/decoder.h"

namespace spear {

class RowScorer {
 public:
  // Per row: −log p(target), the most likely token. Any span may be empty.
  struct Output {
    std::span<float> nll;     // [rows]
    std::span<int32_t> best;  // [rows]
    std::span<float> kl;      // [rows], only with a teacher
  };
  // The reference beside whose predictions rows are judged: its head and its hidden states of the
  // same rows.
  struct Teacher {
    Decoder* decoder = nullptr;
    const float* hidden = nullptr;  // [rows, hidden] on the backend
  };

  explicit RowScorer(Decoder& decoder);

  // hidden: [rows, hidden] on the backend; targets: [rows].
  void score(const float* hidden, std::span<const int32_t> targets, const Teacher& teacher,
             const Output& output);

 private:
  void score_chunk(const float* hidden, std::span<const int32_t> targets, const Teacher& teacher,
                   const Output& output);

  Decoder* decoder_;
  int64_t chunk_rows_;
  DeviceBuffer logits_, teacher_logits_;  // [chunk_rows, vocab]
  DeviceBuffer log_sums_, best_, kl_;     // [chunk_rows]
  DeviceBuffer targets_, target_logits_;  // [chunk_rows]
  std::vector<float> host_logits_;
};

}  // namespace spear
