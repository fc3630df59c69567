#include "spear/scheduler/forecast.h"

#include <algorithm>

namespace spear {
namespace {

constexpr int64_t kTypicalContext = 512;  // before a row of a prompt, where nothing says more

}  // namespace

double prompt_row_seconds(const SchedulerOptions& options, const StepCostModel& costs,
                          const StepShape& steady, double interval) {
  const auto with = [&](int64_t rows) {
    StepShape shape = steady;
    shape.prefill_tokens = rows;
    shape.prefill_pairs = rows * kTypicalContext;
    return costs.seconds(shape);
  };
  int64_t rows = options.static_chunk > 0 ? options.static_chunk : options.token_budget;
  rows = std::clamp<int64_t>(rows, 1, options.token_budget);
  if (options.static_chunk == 0 && interval != kNoDeadline) {
    const double headroom = costs.headroom();
    int64_t low = std::min(kLeastChunk, rows), high = rows + 1;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (headroom * with(middle) <= interval ? low : high) = middle;
    }
    rows = low;
  }
  return with(rows) / static_cast<double>(rows);
}

bool decodes_in_time(const StepCostModel& costs, const StepShape& steady, double interval) {
  return costs.headroom() * costs.seconds(steady) <= kDecodeShare * interval;
}

void PlacePace::ended(double now) {
  constexpr double kRate = 0.05, kMost = 60;
  const double since = std::min(now - last_, kMost);
  seconds_ += (seconds_ == 0 ? 1 : kRate) * (since - seconds_);
  last_ = now;
}

LoadForecast forecast(const Scheduler& scheduler, const StepCostModel& costs,
                      double place_seconds) {
  LoadForecast load{.place_seconds = place_seconds};
  StepShape steady;
  double interval = kNoDeadline;
  int64_t places = 0;
  for (const Sequence* s : scheduler.running()) {
    places += 1 + s->siblings;
    interval = std::min(interval, s->itl_objective);
    if (!s->decoding()) {
      load.running_rows += s->pending();
      continue;
    }
    ++steady.decode_sequences;
    ++steady.decode_rows;
    steady.context_tokens += s->length();
  }
  const SchedulerOptions& options = scheduler.options();
  load.row_seconds = prompt_row_seconds(options, costs, steady, interval);
  if (!scheduler.running().empty()) load.step_seconds = costs.seconds(steady) / 2;
  load.free_places = static_cast<int32_t>(std::max<int64_t>(options.max_running - places, 0));
  if (options.static_chunk > 0 || interval == kNoDeadline) return load;
  // As many as still decode in time, each with the mean context.
  const int64_t context = steady.context_tokens / std::max<int64_t>(steady.decode_rows, 1);
  for (int32_t more = 0; more < load.free_places; ++more) {
    ++steady.decode_sequences;
    ++steady.decode_rows;
    steady.context_tokens += context;
    if (!decodes_in_time(costs, steady, interval)) load.free_places = more;
  }
  return load;
}

double seconds_to_first_token(const LoadForecast& load, int64_t rows_ahead, int64_t requests_ahead,
                              int64_t rows) {
  const double computing =
      static_cast<double>(load.running_rows + rows_ahead + rows) * load.row_seconds;
  const int64_t missing = requests_ahead + 1 - load.free_places;
  const double places = missing > 0 ? static_cast<double>(missing) * load.place_seconds +
                                          static_cast<double>(rows) * load.row_seconds
                                    : 0;
  return load.step_seconds + std::max(computing, places);
}

}  // namespace spear
