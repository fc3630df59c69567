#include "spear/cli/text_generator.h"

#include <algorithm>

#include "spear/base/check.h"

namespace spear {
namespace {

constexpr int64_t kPiece = 256;  // tokens of a prompt that are computed together

DeviceBuffer floats(Backend& backend, int64_t count) {
  return backend.allocate(static_cast<size_t>(count) * sizeof(float));
}

}  // namespace

TextGenerator::TextGenerator(Decoder& decoder, int64_t context)
    : decoder_(decoder),
      cache_(decoder.backend(), decoder.config(), 1, context, true),
      hidden_(floats(decoder.backend(), kPiece * decoder.config().hidden_size)),
      device_logits_(floats(decoder.backend(), decoder.config().vocab_size)),
      logits_(static_cast<size_t>(decoder.config().vocab_size)) {}

void TextGenerator::run(std::span<const int32_t> ids) {
  const auto rows = static_cast<int64_t>(ids.size());
  const AttentionSequence sequence = cache_.append(0, 0, rows);
  decoder_.forward({ids, {&sequence, 1}}, cache_, hidden_.as<float>());
  held_.insert(held_.end(), ids.begin(), ids.end());
  last_rows_ = rows;
}

std::span<float> TextGenerator::advance_to(std::span<const int32_t> ids,
                                           const std::function<bool()>& keep_going) {
  expects(!ids.empty() && static_cast<int64_t>(ids.size()) <= context());
  const auto differs = std::mismatch(held_.begin(), held_.end(), ids.begin(), ids.end());
  // At least the last token is computed: its logits are what is asked for.
  const auto kept =
      std::min<int64_t>(differs.first - held_.begin(), static_cast<int64_t>(ids.size()) - 1);
  cache_.truncate(0, kept);
  held_.resize(static_cast<size_t>(kept));
  computed_ = static_cast<int64_t>(ids.size()) - kept;
  for (size_t at = static_cast<size_t>(kept); at < ids.size(); at += static_cast<size_t>(kPiece)) {
    if (keep_going && !keep_going())
      throw Failure(ErrorCode::kInterrupted, "stopped while reading the prompt");
    run(ids.subspan(at, std::min(static_cast<size_t>(kPiece), ids.size() - at)));
  }
  const float* last = hidden_.as<float>() + (last_rows_ - 1) * decoder_.config().hidden_size;
  decoder_.logits(last, 1, device_logits_.as<float>());
  decoder_.backend().download(logits_.data(), device_logits_.as<float>(),
                              logits_.size() * sizeof(float));
  return logits_;
}

}  // namespace spear
