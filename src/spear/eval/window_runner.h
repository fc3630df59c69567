// Runs whole windows through a decoder, several at once, and shows the hidden states of their
// scored positions. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>

#include "spear/backend/backend.h"
#include "spear/base/progress.h"
#include "spear/eval/protocol.h"
#include "spear/model/decoder.h"
#include "spear/model/kv_cache.h"

namespace spear {

struct WindowRange {
  int64_t first = 0, count = 0;
};

// Throws Failure(kInterrupted) once the user asked to stop.
void stop_if_asked(const Progress& progress);

class WindowRunner {
 public:
  // `batch_rows`: tokens of one forward pass; at least one window is taken.
  WindowRunner(Decoder& decoder, const Windows& windows, int64_t batch_rows,
               DType kv = DType::kF32);

  // hidden is [predictions, hidden_size] on the backend, valid during the call.
  using Visit = std::function<void(int64_t window, const float* hidden)>;
  void run(WindowRange range, Progress& progress, const Visit& visit);

 private:
  void forward(WindowRange part);

  Decoder* decoder_;
  const Windows* windows_;
  int64_t batch_;
  KvCache cache_;
  DeviceBuffer hidden_;  // [batch * context, hidden_size]
};

}  // namespace spear
