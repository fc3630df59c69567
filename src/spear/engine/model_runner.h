// The decoder as the engine's model: bare pages of a KV cache, one forward pass a step, logits of
// the rows that are asked for. Buffers grow to the largest step seen and stay. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/backend/compensator_switch.h"
#include "spear/engine/compensator_levels.h"
#include "spear/engine/step_model.h"
#include "spear/model/decoder.h"
#include "spear/model/kv_cache.h"

namespace spear {

struct DecoderModelOptions {
  int64_t pages = 0;  // of KvCache::kPageSize tokens
  DType kv_type = DType::kF32;
  // Every sequence runs alone and gets its logits alone, unless the decoder has a compiled step,
  // which promises the same by itself: the arithmetic of a row then depends on its own sequence
  // only (with SchedulerOptions::fixed_shapes, on nothing else at all). On the plain path weights
  // are then read once a sequence instead of once a step: decoding several costs as if one by one.
  bool rows_stand_alone = false;
  // Levels that compensators can be switched off to; needs a compiled step that can, else there is
  // level 0 alone.
  CompensatorLevels levels = {};
};

class DecoderModel final : public StepModel {
 public:
  // The decoder must outlive this. Throws Failure where its backend has no such cache.
  DecoderModel(Decoder& decoder, const DecoderModelOptions& options);

  [[nodiscard]] int64_t vocab_size() const override { return decoder_.config().vocab_size; }
  [[nodiscard]] int64_t max_context() const override {
    return decoder_.config().max_position_embeddings;
  }
  [[nodiscard]] int64_t page_size() const override { return KvCache::kPageSize; }
  [[nodiscard]] int64_t pages() const override { return cache_.pages(); }
  // A compiled step promises it for a sequence whose own rows are the same.
  [[nodiscard]] bool rows_stand_alone() const override {
    return one_by_one_ || decoder_.program() != nullptr;
  }
  [[nodiscard]] int32_t levels() const override { return switch_ == nullptr ? 1 : levels_.count(); }
  [[nodiscard]] const std::vector<double>& level_shares() const { return levels_.shares; }
  [[nodiscard]] bool runs_bare_rows() const override { return decoder_.runs_bare_rows(); }
  std::span<float> run(const StepInput& input) override;

  [[nodiscard]] size_t cache_bytes() const { return cache_.bytes(); }

 private:
  void run_part(const StepInput& input, float* logits);
  float* grow(DeviceBuffer& buffer, int64_t floats);

  Decoder& decoder_;
  KvCache cache_;
  bool one_by_one_;
  CompensatorLevels levels_;
  CompensatorSwitch* switch_;  // of the decoder's program, or null
  int32_t level_ = 0;
  bool host_memory_;  // the backend's memory is the host's
  DeviceBuffer hidden_, wanted_, logits_;
  std::vector<float> host_logits_;
  std::vector<int32_t> part_rows_;
};

}  // namespace spear
