// The scheduler on a virtual clock: requests arrive by a list, steps take what a cost model says,
// nothing is computed. The same code that serves decides here: plan(), admission, learning. A
// million requests take minutes; a device that is not there is a table. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "spear/scheduler/forecast.h"
#include "spear/scheduler/scheduler.h"

namespace spear {

struct SimulatedRequest {
  double arrival = 0;  // seconds, ascending
  int32_t prompt = 0;  // tokens, at least 1
  int32_t answer = 0;  // tokens, at least 1
  int32_t priority = 0;
  double ttft_objective = 0;  // seconds; 0: none
  double itl_objective = 0;
  bool full_quality = false;
};

enum class SimulatedEnd : uint8_t {
  kServed,
  kRefused,    // would not have its first token in time
  kQueueFull,  // or did not fit
};

struct SimulatedOutcome {
  SimulatedEnd end = SimulatedEnd::kServed;
  double first_token = 0, finished = 0;  // seconds of the clock
  int32_t gaps = 0, late_gaps = 0;       // between tokens; longer than the objective
  int32_t preemptions = 0, level = 0;    // the most compensators that were off
  double predicted_ttft = 0;             // at arrival, seconds
};

// Counts of gaps in bins of half a percent: percentiles without keeping them.
class GapCounts {
 public:
  GapCounts();
  void add(double seconds);
  [[nodiscard]] double percentile(double share) const;  // 0 where nothing was counted
  [[nodiscard]] int64_t count() const { return count_; }

 private:
  std::vector<int64_t> bins_;
  int64_t count_ = 0;
};

struct SimulationOptions {
  SchedulerOptions scheduler;
  bool admission = false;    // refuse what cannot have its first token in time
  bool check = false;        // the scheduler's invariants after each step
  double noise = 0;          // a step takes exp(noise · normal) times what it should
  double between_steps = 0;  // seconds that planning and delivery take
  uint64_t seed = 1;
};

struct Simulation {
  std::vector<SimulatedOutcome> outcomes;  // by request
  GapCounts gaps;
  double seconds = 0;  // of the virtual clock, to the last end
  int64_t steps = 0, tokens = 0, preemptions = 0;
  int64_t steps_below_full = 0;  // with compensators off
  const char* broken = nullptr;  // an invariant, where one was found
};

// `truth` says what steps take, `costs` is what the scheduler believes and learns by; they may be
// one. Ends when all requests have.
Simulation simulate(std::span<const SimulatedRequest> requests, const StepCostModel& truth,
                    StepCostModel& costs, const SimulationOptions& options);

// What a run of requests came to. `late_share`: of a request's gaps, how many may be late (rounded
// up to whole gaps) while it still met its objective.
struct ServiceLevel {
  double goodput = 0;     // requests a second that met both objectives
  double met_share = 0;   // of all requests
  double throughput = 0;  // tokens of answers a second
  double mean_ttft = 0, p99_ttft = 0, p99_itl = 0, p50_itl = 0;  // seconds, of those served
  int64_t refused = 0;
};
bool met_objectives(const SimulatedRequest& request, const SimulatedOutcome& outcome,
                    double late_share);
ServiceLevel service_level(std::span<const SimulatedRequest> requests, const Simulation& run,
                           double late_share);

}  // namespace spear
