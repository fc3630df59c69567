// How long work tells its caller where it stands, and learns that the user wants it to stop.
// Implemented by the command line (a bar with ETA); the workshops only call it. advance() may be
// called from one thread at a time.
#pragma once

#include <cstdint>
#include <string_view>

namespace spear {

class Progress {
 public:
  virtual ~Progress() = default;
  // A phase of `total` steps begins ("covariances", 30); it replaces the running one.
  virtual void begin(std::string_view phase, int64_t total) = 0;
  // `steps` more are done; `note` stands behind the bar ("loss 0.31, held-out KL 0.29").
  virtual void advance(int64_t steps, std::string_view note = {}) = 0;
  virtual void end() = 0;
  // True once the user asked to stop (Ctrl-C): finish the step, save, and throw
  // Failure(kInterrupted).
  [[nodiscard]] virtual bool stop_requested() const = 0;
};

// For callers that do not watch.
class SilentProgress final : public Progress {
 public:
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t, std::string_view) override {}
  void end() override {}
  [[nodiscard]] bool stop_requested() const override { return false; }
};

}  // namespace spear
