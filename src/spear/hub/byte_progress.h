// Counts bytes and reports whole megabytes to a Progress; the phase ends in "[MB]", which names the
// unit of the bar.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "spear/base/progress.h"

namespace spear {

class ByteProgress {
 public:
  // total 0: unknown.
  ByteProgress(Progress& progress, std::string_view phase, int64_t total) : progress_(progress) {
    progress_.begin(std::string(phase) + " [MB]", (total + kMega - 1) / kMega);
  }
  ByteProgress(const ByteProgress&) = delete;
  ByteProgress& operator=(const ByteProgress&) = delete;
  ~ByteProgress() { progress_.end(); }

  [[nodiscard]] int64_t done() const { return done_; }
  [[nodiscard]] bool stop_requested() const { return progress_.stop_requested(); }
  void set(int64_t bytes, std::string_view note = {}) {
    const int64_t steps = bytes / kMega - done_ / kMega;
    done_ = bytes;
    progress_.advance(steps, note);
  }

 private:
  static constexpr int64_t kMega = 1'000'000;
  Progress& progress_;
  int64_t done_ = 0;
};

}  // namespace spear
