#include "spear/eval/window_runner.h"

#include <algorithm>
#include <span>
#include <vector>

namespace spear {

void stop_if_asked(const Progress& progress) {
  if (progress.stop_requested())
    throw Failure(
        ErrorCode::kInterrupted,
        "evaluation stopped; finished work is kept, and the same command goes on from there");
}

WindowRunner::WindowRunner(Decoder& decoder, const Windows& windows, int64_t batch_rows, DType kv)
    : decoder_(&decoder),
      windows_(&windows),
      batch_(std::clamp<int64_t>(batch_rows / windows.protocol.context, 1, windows.count)),
      cache_(decoder.backend(), decoder.config(), batch_, windows.protocol.context, false, kv),
      hidden_(decoder.backend().allocate(
          static_cast<size_t>(batch_ * windows.protocol.context * decoder.config().hidden_size) *
          sizeof(float))) {}

void WindowRunner::run(WindowRange range, Progress& progress, const Visit& visit) {
  const int64_t context = windows_->protocol.context;
  const int64_t width = decoder_->config().hidden_size;
  for (int64_t done = 0; done < range.count; done += batch_) {
    stop_if_asked(progress);
    const WindowRange part{range.first + done, std::min(batch_, range.count - done)};
    forward(part);
    for (int64_t i = 0; i < part.count; ++i)
      visit(part.first + i,
            hidden_.as<float>() + (i * context + windows_->protocol.first()) * width);
    progress.advance(part.count);
  }
}

void WindowRunner::forward(WindowRange part) {
  const int64_t context = windows_->protocol.context;
  cache_.reset_all();
  std::vector<AttentionSequence> sequences;
  for (int64_t i = 0; i < part.count; ++i)
    sequences.push_back(cache_.append(i, i * context, context));
  const auto tokens = std::span(windows_->tokens)
                          .subspan(static_cast<size_t>(part.first * context),
                                   static_cast<size_t>(part.count * context));
  decoder_->forward({tokens, sequences}, cache_, hidden_.as<float>());
}

}  // namespace spear
