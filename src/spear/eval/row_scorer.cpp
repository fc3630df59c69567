#include "spear/eval/row_scorer.h"

#include <algorithm>
#include <vector>

#include "spear/base/check.h"

namespace spear {
namespace {

constexpr int64_t kChunkFloats = int64_t{1} << 24;  // of logits at once: 64 MiB
constexpr int64_t kMostRows = 512;

template <class T>
std::span<T> part(std::span<T> whole, size_t begin, size_t count) {
  return whole.empty() ? whole : whole.subspan(begin, count);
}

template <class T>
void download(Backend& backend, std::span<T> to, const DeviceBuffer& from) {
  if (!to.empty()) backend.download(to.data(), from.as<T>(), to.size_bytes());
}

}  // namespace

RowScorer::RowScorer(Decoder& decoder)
    : decoder_(&decoder),
      chunk_rows_(std::clamp<int64_t>(kChunkFloats / decoder.config().vocab_size, 1, kMostRows)) {
  Backend& backend = decoder.backend();
  const auto rows = static_cast<size_t>(chunk_rows_);
  logits_ =
      backend.allocate(rows * static_cast<size_t>(decoder.config().vocab_size) * sizeof(float));
  log_sums_ = backend.allocate(rows * sizeof(float));
  best_ = backend.allocate(rows * sizeof(int32_t));
  targets_ = backend.allocate(rows * sizeof(int32_t));
  target_logits_ = backend.allocate(rows * sizeof(float));
  kl_ = backend.allocate(rows * sizeof(float));
}

void RowScorer::score(const float* hidden, std::span<const int32_t> targets, const Teacher& teacher,
                      const Output& output) {
  const int64_t width = decoder_->config().hidden_size;
  const auto total = static_cast<int64_t>(targets.size());
  for (int64_t begin = 0; begin < total; begin += chunk_rows_) {
    const auto first = static_cast<size_t>(begin);
    const auto count = static_cast<size_t>(std::min(chunk_rows_, total - begin));
    Teacher beside = teacher;
    if (beside.decoder != nullptr) beside.hidden += begin * width;
    score_chunk(hidden + begin * width, targets.subspan(first, count), beside,
                {part(output.nll, first, count), part(output.best, first, count),
                 part(output.kl, first, count)});
  }
}

void RowScorer::score_chunk(const float* hidden, std::span<const int32_t> targets,
                            const Teacher& teacher, const Output& output) {
  Backend& backend = decoder_->backend();
  const int64_t vocab = decoder_->config().vocab_size;
  const auto rows = static_cast<int64_t>(targets.size());
  auto* logits = logits_.as<float>();
  for (const int32_t target : targets) expects(target >= 0 && target < vocab);
  backend.upload(targets_.as<int32_t>(), targets.data(), targets.size_bytes());
  host_logits_.resize(targets.size());
  decoder_->logits(hidden, rows, logits);
  backend.log_sum_exp({.m = rows,
                       .vocab = vocab,
                       .logits = logits,
                       .log_sum = log_sums_.as<float>(),
                       .argmax = best_.as<int32_t>(),
                       .targets = targets_.as<int32_t>(),
                       .target_logits = target_logits_.as<float>()});
  download(backend, output.best, best_);
  if (!output.nll.empty()) {
    download(backend, output.nll, log_sums_);
    download(backend, std::span(host_logits_), target_logits_);
    for (size_t row = 0; row < targets.size(); ++row) output.nll[row] -= host_logits_[row];
  }
  if (teacher.decoder == nullptr || output.kl.empty()) return;
  expects(teacher.decoder->config().vocab_size == vocab);
  if (teacher_logits_.bytes() == 0) teacher_logits_ = backend.allocate(logits_.bytes());
  teacher.decoder->logits(teacher.hidden, rows, teacher_logits_.as<float>());
  backend.kl_divergence({.m = rows,
                         .vocab = vocab,
                         .teacher = teacher_logits_.as<float>(),
                         .student = logits,
                         .kl = kl_.as<float>()});
  download(backend, output.kl, kl_);
}

}  // namespace spear
