// What the engine asks of a model: rows of several sequences in, logits of some of them out. The
// decoder is one (model_runner.h); tests script others. Used by the engine's thread alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "spear/kernels/attention.h"
#include "spear/scheduler/scheduler.h"

namespace spear {

struct StepInput {
  std::span<const PageCopy> copies = {};              // done first, in order
  std::span<const int32_t> tokens = {};               // [m]
  std::span<const AttentionSequence> sequences = {};  // cover all rows in order
  std::span<const int32_t> logit_rows = {};           // ascending rows of the batch
  int32_t level = 0;                   // which compensators run, below levels(); 0: all
  std::span<const uint8_t> bare = {};  // [m], 1: none runs for this row; empty: as `level` says
};

class StepModel {
 public:
  virtual ~StepModel() = default;
  [[nodiscard]] virtual int64_t vocab_size() const = 0;
  [[nodiscard]] virtual int64_t max_context() const = 0;  // what its positions allow
  [[nodiscard]] virtual int64_t page_size() const = 0;
  [[nodiscard]] virtual int64_t pages() const = 0;
  // Whether the arithmetic of a row depends on its own sequence only, whoever runs beside it.
  [[nodiscard]] virtual bool rows_stand_alone() const = 0;
  // How far compensators can be switched off: each level runs fewer than the last.
  [[nodiscard]] virtual int32_t levels() const { return 1; }
  // Whether StepInput::bare is understood; where not, it is empty.
  [[nodiscard]] virtual bool runs_bare_rows() const { return false; }
  // [logit_rows, vocab] in host memory; the caller may change them; they hold until the next run.
  // Throws Failure or std::bad_alloc when the device fails.
  virtual std::span<float> run(const StepInput& input) = 0;
};

}  // namespace spear
