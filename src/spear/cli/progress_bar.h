// The Progress of the command line, on standard error. On a terminal one line is redrawn with
// share, rate, ETA and note; elsewhere a plain line appears about every ten seconds. Work shorter
// than two seconds shows nothing. A phase whose name ends in "[unit]" has its steps and rate shown
// in that unit. begin/advance/end from one thread at a time; an own thread redraws, so a long step
// does not freeze the time.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "spear/base/progress.h"

namespace spear {

// What a bar shows at one moment; drawing it is a plain function so that it can be tested.
struct BarState {
  std::string phase;
  std::string unit;  // "MB", or empty
  int64_t done = 0;
  int64_t total = 0;   // 0: unknown
  double seconds = 0;  // since the phase began
  double rate = 0;     // steps a second; 0: unknown
  std::string note;
};

std::string bar_line(const BarState& state, int width);  // at most `width` columns
std::string plain_line(const BarState& state);
std::string duration_text(double seconds);  // "42 s", "3:05", "1:02:03"

struct ProgressBarOptions {
  std::FILE* stream = stderr;
  bool terminal = false;
  bool quiet = false;
  std::function<bool()> stop_requested;
  std::chrono::milliseconds show_after{2000};
  std::chrono::milliseconds plain_every{10000};
};

class ProgressBar final : public Progress {
 public:
  explicit ProgressBar(ProgressBarOptions options);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() override;

  void begin(std::string_view phase, int64_t total) override;
  void advance(int64_t steps, std::string_view note = {}) override;
  void end() override;
  [[nodiscard]] bool stop_requested() const override;

  // A line above the bar (a warning, say); any thread.
  void print_above(std::string_view line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spear
