#include "spear/cli/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace spear {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRedraw = std::chrono::milliseconds(200);
constexpr double kMemory = 15;  // seconds over which the rate forgets
constexpr int kBarCells = 20;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

int terminal_width(std::FILE* stream) {
  winsize size{};
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 80;
}

// The first `columns` characters of UTF-8 text, one column each.
std::string cut_columns(std::string text, int columns) {
  int seen = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts && seen++ == columns) {
      text.resize(i);
      break;
    }
  }
  return text;
}

std::string rate_text(double rate, const std::string& unit) {
  const std::string per = unit.empty() ? "/s" : " " + unit + "/s";
  if (rate <= 0) return {};
  if (rate >= 10) return fmt::format("{:.0f}{}", rate, per);
  if (rate >= 0.1) return fmt::format("{:.1f}{}", rate, per);
  return fmt::format("{} each", duration_text(1 / rate));
}

// "41/93 MB", "41 MB" when the end is not known.
std::string count_text(const BarState& s) {
  const std::string unit = s.unit.empty() ? "" : " " + s.unit;
  return s.total > 0 ? fmt::format("{}/{}{}", s.done, s.total, unit)
                     : fmt::format("{}{}", s.done, unit);
}

double share(const BarState& s) {
  if (s.total <= 0) return 0;
  return std::clamp(static_cast<double>(s.done) / static_cast<double>(s.total), 0.0, 1.0);
}

std::string eta_text(const BarState& s) {
  if (s.total <= 0 || s.rate <= 0) return fmt::format("{} so far", duration_text(s.seconds));
  return "ETA " +
         duration_text(static_cast<double>(std::max<int64_t>(s.total - s.done, 0)) / s.rate);
}

std::string details(const BarState& s) {
  std::string text = count_text(s);
  for (const std::string& part : {rate_text(s.rate, s.unit), eta_text(s), s.note})
    if (!part.empty()) text += "  " + part;
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string bar_line(const BarState& s, int width) {
  std::string line = s.phase + "  ";
  if (s.total > 0) {
    const int full = static_cast<int>(share(s) * kBarCells);
    line += "[" + std::string(static_cast<size_t>(full), '=') + (full < kBarCells ? ">" : "") +
            std::string(static_cast<size_t>(std::max(kBarCells - full - 1, 0)), ' ') +
            fmt::format("] {:3.0f}%  ", std::floor(share(s) * 100));
  }
  return cut_columns(line + details(s), width);
}

std::string plain_line(const BarState& s) {
  const std::string percent =
      s.total > 0 ? fmt::format(" {:.0f}% ", std::floor(share(s) * 100)) : " ";
  return "spear: " + s.phase + percent + details(s);
}

struct ProgressBar::State {
  explicit State(ProgressBarOptions o) : options(std::move(o)) {}

  ProgressBarOptions options;
  std::mutex mutex;
  std::condition_variable changed;
  std::thread painter;
  bool leaving = false;
  bool running = false;
  bool drawn = false;  // the terminal's line holds our bar
  bool spoke = false;  // this phase has shown something
  BarState bar;
  Clock::time_point began;
  Clock::time_point sampled;
  Clock::time_point last_plain;
  int64_t sampled_done = 0;

  void erase() {
    if (drawn) std::fputs("\r\033[K", options.stream);
    drawn = false;
  }

  // Recent speed counts more than early speed; the first sample is the average so far.
  void sample(Clock::time_point now) {
    const double dt = seconds_between(sampled, now);
    const int64_t steps = bar.done - sampled_done;
    if (dt < 0.5 || steps <= 0) return;
    const double speed = static_cast<double>(steps) / dt;
    const double weight = bar.rate <= 0 ? 1 : 1 - std::exp(-dt / kMemory);
    bar.rate += weight * (speed - bar.rate);
    sampled = now;
    sampled_done = bar.done;
  }

  void paint(Clock::time_point now) {
    if (!running || now - began < options.show_after) return;
    bar.seconds = seconds_between(began, now);
    if (options.terminal) {
      const std::string line = bar_line(bar, terminal_width(options.stream) - 1);
      std::fprintf(options.stream, "\r\033[K%s", line.c_str());
      drawn = true;
      spoke = true;
    } else if (now - last_plain >= options.plain_every) {
      std::fprintf(options.stream, "%s\n", plain_line(bar).c_str());
      last_plain = now;
      spoke = true;
    }
    std::fflush(options.stream);
  }

  void finish(Clock::time_point now) {
    if (!running) return;
    running = false;
    erase();
    if (spoke && !options.quiet) {
      const std::string note = bar.note.empty() ? "" : "  " + bar.note;
      std::fprintf(options.stream, "spear: %s: %s in %s%s\n", bar.phase.c_str(),
                   count_text(bar).c_str(), duration_text(seconds_between(began, now)).c_str(),
                   note.c_str());
      std::fflush(options.stream);
    }
  }

  void paint_until_left() {
    std::unique_lock lock(mutex);
    while (!leaving) {
      changed.wait_for(lock, kRedraw);
      paint(Clock::now());
    }
  }
};

ProgressBar::ProgressBar(ProgressBarOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}

ProgressBar::~ProgressBar() {
  end();
  {
    const std::lock_guard lock(state_->mutex);
    state_->leaving = true;
  }
  state_->changed.notify_all();
  if (state_->painter.joinable()) state_->painter.join();
}

void ProgressBar::begin(std::string_view phase, int64_t total) {
  if (state_->options.quiet) return;
  const std::lock_guard lock(state_->mutex);
  const Clock::time_point now = Clock::now();
  state_->finish(now);
  std::string unit;
  const size_t bracket = phase.rfind(" [");
  if (bracket != phase.npos && phase.ends_with(']')) {
    unit = phase.substr(bracket + 2, phase.size() - bracket - 3);
    phase = phase.substr(0, bracket);
  }
  state_->bar = {.phase = std::string(phase),
                 .unit = unit,
                 .done = 0,
                 .total = total,
                 .seconds = 0,
                 .rate = 0,
                 .note = {}};
  state_->began = state_->sampled = state_->last_plain = now;
  state_->sampled_done = 0;
  state_->spoke = false;
  state_->running = true;
  if (!state_->painter.joinable())
    state_->painter = std::thread([state = state_.get()] { state->paint_until_left(); });
}

void ProgressBar::advance(int64_t steps, std::string_view note) {
  if (state_->options.quiet) return;
  const std::lock_guard lock(state_->mutex);
  state_->bar.done += steps;
  if (!note.empty()) state_->bar.note = note;
  state_->sample(Clock::now());
}

void ProgressBar::end() {
  const std::lock_guard lock(state_->mutex);
  state_->finish(Clock::now());
}

bool ProgressBar::stop_requested() const {
  return state_->options.stop_requested && state_->options.stop_requested();
}

void ProgressBar::print_above(std::string_view line) {
  const std::lock_guard lock(state_->mutex);
  state_->erase();
  std::fwrite(line.data(), 1, line.size(), state_->options.stream);
  std::fputc('\n', state_->options.stream);
  std::fflush(state_->options.stream);
}

}  // namespace spear
