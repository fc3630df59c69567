// How long a prompt will wait and take, from what runs and what steps cost: the ground for the
// order of prompts and for refusing early. Pure functions, plain values.
#pragma once

#include <cstdint>
#include <span>

#include "spear/scheduler/scheduler.h"

namespace spear {

// Rows of prompts go on under an objective that nothing can meet, this many a step.
inline constexpr int64_t kLeastChunk = 16;
// Of the inter-token objective, what decoding alone may take when one more answer starts.
inline constexpr double kDecodeShare = 0.85;

// Seconds for one row of a prompt beside what decodes in every step: the largest chunk within the
// objective `interval` decides (or the static chunk). `steady`: the decoding rows.
double prompt_row_seconds(const SchedulerOptions& options, const StepCostModel& costs,
                          const StepShape& steady, double interval);

// Whether answers of this shape leave room for prompts within the objective.
bool decodes_in_time(const StepCostModel& costs, const StepShape& steady, double interval);

// What a new request will find; made on the engine's thread after a step, read on others.
struct LoadForecast {
  double row_seconds = 0;    // of a prompt
  double step_seconds = 0;   // until the step under way has ended, on average
  double place_seconds = 0;  // between two ends of answers, lately
  int64_t running_rows = 0;  // of prompts that have started
  int32_t free_places = 0;   // answers that may start
};

// Counts the ends of answers for `place_seconds`: an exponential mean, of which a pause is at most
// one minute.
class PlacePace {
 public:
  void ended(double now);
  [[nodiscard]] double seconds() const { return seconds_; }

 private:
  double last_ = 0, seconds_ = 0;
};

// `place_seconds` as above, from whoever counts the ends.
LoadForecast forecast(const Scheduler& scheduler, const StepCostModel& costs, double place_seconds);

// Seconds from now to the first token of a prompt of `rows` behind `rows_ahead` rows of
// `requests_ahead` requests.
double seconds_to_first_token(const LoadForecast& load, int64_t rows_ahead, int64_t requests_ahead,
                              int64_t rows);

}  // namespace spear
