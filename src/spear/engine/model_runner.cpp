#include "spear/engine/model_runner.h"

#include <algorithm>

#include "spear/base/check.h"

namespace spear {

DecoderModel::DecoderModel(Decoder& decoder, const DecoderModelOptions& options)
    : decoder_(decoder),
      cache_(
          KvCache::bare_pages(decoder.backend(), decoder.config(), options.pages, options.kv_type)),
      one_by_one_(options.rows_stand_alone && decoder.program() == nullptr),
      levels_(options.levels),
      switch_(levels_.count() > 1 ? dynamic_cast<CompensatorSwitch*>(decoder.program()) : nullptr),
      host_memory_(decoder.backend().training_ops() == nullptr) {}

float* DecoderModel::grow(DeviceBuffer& buffer, int64_t floats) {
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  if (buffer.bytes() < bytes) buffer = decoder_.backend().allocate(bytes);
  return buffer.as<float>();
}

// Rows of consecutive wanted tokens are copied together.
void DecoderModel::run_part(const StepInput& input, float* logits) {
  const int64_t width = decoder_.config().hidden_size;
  float* hidden = grow(hidden_, std::ssize(input.tokens) * width);
  decoder_.forward({input.tokens, input.sequences, input.bare}, cache_, hidden);
  const auto& rows = input.logit_rows;
  if (rows.empty()) return;
  const bool consecutive = rows.back() - rows.front() == std::ssize(rows) - 1;
  float* wanted = hidden + rows.front() * width;
  if (!consecutive) {
    wanted = grow(wanted_, std::ssize(rows) * width);
    for (size_t begin = 0, end = 1; begin < rows.size(); begin = end, end = begin + 1) {
      while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
      decoder_.backend().copy(hidden + rows[begin] * width,
                              wanted + static_cast<int64_t>(begin) * width,
                              static_cast<int64_t>(end - begin) * width);
    }
  }
  decoder_.logits(wanted, std::ssize(rows), logits);
}

std::span<float> DecoderModel::run(const StepInput& input) {
  if (input.level != level_) {
    expects(input.level >= 0 && input.level < levels());
    level_ = input.level;
    switch_->set_active(levels_.active[static_cast<size_t>(level_)]);
  }
  for (const PageCopy& copy : input.copies) cache_.copy_page(copy.from, copy.to);
  const auto count = std::ssize(input.logit_rows) * vocab_size();
  float* logits = grow(logits_, std::max<int64_t>(count, 1));
  if (!one_by_one_) {
    run_part(input, logits);
  } else {
    size_t next = 0;  // of logit_rows
    for (const AttentionSequence& sequence : input.sequences) {
      AttentionSequence alone = sequence;
      alone.first_row = 0;
      part_rows_.clear();
      const size_t first = next;
      for (; next < input.logit_rows.size() &&
             input.logit_rows[next] < sequence.first_row + sequence.rows;
           ++next)
        part_rows_.push_back(input.logit_rows[next] - static_cast<int32_t>(sequence.first_row));
      run_part({.tokens = input.tokens.subspan(static_cast<size_t>(sequence.first_row),
                                               static_cast<size_t>(sequence.rows)),
                .sequences = {&alone, 1},
                .logit_rows = part_rows_},
               logits + static_cast<int64_t>(first) * vocab_size());
    }
  }
  if (host_memory_) {
    decoder_.backend().synchronize();
    return {logits, static_cast<size_t>(count)};
  }
  host_logits_.resize(static_cast<size_t>(count));
  decoder_.backend().download(host_logits_.data(), logits,
                              static_cast<size_t>(count) * sizeof(float));
  return host_logits_;
}

}  // namespace spear
