#include "spear/scheduler/simulator.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "spear/base/check.h"
#include "spear/base/rng.h"

namespace spear {
namespace {

constexpr double kSmallestGap = 1e-7, kBin = 1.005;
constexpr size_t kBins = 4600;  // to about 900 seconds

class Simulator {
 public:
  Simulator(std::span<const SimulatedRequest> requests, const StepCostModel& truth,
            StepCostModel& costs, const SimulationOptions& options)
      : requests_(requests),
        truth_(truth),
        costs_(costs),
        options_(options),
        scheduler_(options.scheduler),
        batch_(options.scheduler),
        rng_(options.seed) {
    run_.outcomes.resize(requests.size());
  }

  Simulation run() {
    while (run_.broken == nullptr) {
      take_in();
      if (scheduler_.running().empty() && scheduler_.waiting().empty()) {
        if (next_ == requests_.size()) break;
        now_ = std::max(now_, requests_[next_].arrival);
        continue;
      }
      step();
    }
    run_.seconds = now_;
    run_.preemptions = scheduler_.preemptions();
    return std::move(run_);
  }

 private:
  SimulatedOutcome& outcome_of(const Sequence& s) { return run_.outcomes[s.id]; }
  const SimulatedRequest& request_of(const Sequence& s) const { return requests_[s.id]; }

  void take_in() {
    for (; next_ < requests_.size() && requests_[next_].arrival <= now_; ++next_) {
      std::unique_ptr<Sequence> s = make(next_);
      SimulatedOutcome& outcome = run_.outcomes[next_];
      if (!scheduler_.fits(*s)) {
        outcome.end = SimulatedEnd::kQueueFull;
      } else if (!would_be_in_time(*s, outcome)) {
        outcome.end = SimulatedEnd::kRefused;
      } else if (!scheduler_.add(*s)) {
        outcome.end = SimulatedEnd::kQueueFull;
      } else {
        s.release();  // until end()
        continue;
      }
      outcome.finished = now_;
      spare_.push_back(std::move(s));
    }
  }

  std::unique_ptr<Sequence> make(size_t index) {
    const SimulatedRequest& r = requests_[index];
    std::unique_ptr<Sequence> s;
    if (spare_.empty()) {
      s = std::make_unique<Sequence>();
    } else {
      s = std::move(spare_.back());
      spare_.pop_back();
      std::vector<int32_t> tokens = std::move(s->tokens);
      BlockTable pages = std::move(s->pages);
      std::vector<uint64_t> nodes = std::move(s->nodes);
      *s = Sequence{};
      s->tokens = std::move(tokens), s->pages = std::move(pages), s->nodes = std::move(nodes);
      s->tokens.clear(), s->pages.clear(), s->nodes.clear();
    }
    s->id = index;
    s->priority = r.priority;
    s->arrival = r.arrival;
    if (r.ttft_objective > 0) s->ttft_deadline = r.arrival + r.ttft_objective;
    if (r.itl_objective > 0) s->itl_objective = r.itl_objective;
    s->full_quality = r.full_quality;
    s->use_prefix_cache = false;
    s->prompt_tokens = r.prompt;
    s->max_tokens = r.prompt + r.answer;
    reserve_for_life(*s, options_.scheduler.page_size, 0);
    // Every prompt is its own: nothing is found in the prefix cache by chance.
    s->tokens.assign(static_cast<size_t>(r.prompt), static_cast<int32_t>(index));
    return s;
  }

  bool would_be_in_time(Sequence& s, SimulatedOutcome& outcome) {
    s.turn = turn_of(s, options_.scheduler.patience);
    int64_t rows = 0, ahead = 0;
    for (const Sequence* w : scheduler_.waiting()) {
      if (runs_before(s, *w)) break;
      rows += w->pending();
      ++ahead;
    }
    outcome.predicted_ttft = now_ - s.arrival +
                             seconds_to_first_token(forecast(scheduler_, costs_, places_.seconds()),
                                                    rows, ahead, s.prompt_tokens);
    return !options_.admission || s.ttft_deadline == kNoDeadline ||
           s.arrival + outcome.predicted_ttft <= s.ttft_deadline;
  }

  void step() {
    scheduler_.plan(now_, costs_, batch_);
    scheduler_.commit(batch_);
    if (batch_.empty()) {
      expects(!batch_.preempted.empty());
      return;
    }
    double seconds = truth_.seconds(batch_.shape) + options_.between_steps;
    if (options_.noise > 0) seconds *= std::exp(options_.noise * rng_.normal());
    now_ += seconds;
    costs_.observe(batch_.shape, seconds);
    ++run_.steps;
    if (batch_.shape.level > 0) ++run_.steps_below_full;
    for (const ScheduledRows& rows : batch_.rows) finish_rows(rows);
    if (options_.check && run_.broken == nullptr) run_.broken = scheduler_.check();
  }

  void finish_rows(const ScheduledRows& rows) {
    Sequence& s = *rows.sequence;
    SimulatedOutcome& outcome = outcome_of(s);
    outcome.level = std::max(outcome.level, batch_.shape.level);
    if (rows.samples) {
      s.tokens.push_back(0);
      ++run_.tokens;
      if (outcome.first_token == 0) {
        outcome.first_token = now_;
      } else {
        const double gap = now_ - s.last_token;
        ++outcome.gaps;
        if (s.itl_objective != kNoDeadline && gap > s.itl_objective) ++outcome.late_gaps;
        run_.gaps.add(gap);
      }
      s.last_token = now_;
    }
    scheduler_.completed(s, rows.rows);
    if (s.length() == s.max_tokens) end(s);
  }

  void end(Sequence& s) {
    SimulatedOutcome& outcome = outcome_of(s);
    outcome.finished = now_;
    outcome.preemptions = s.preemptions;
    scheduler_.remove(s);
    spare_.emplace_back(&s);
    places_.ended(now_);
  }

  std::span<const SimulatedRequest> requests_;
  const StepCostModel& truth_;
  StepCostModel& costs_;
  SimulationOptions options_;
  Scheduler scheduler_;
  ScheduledBatch batch_;
  Rng rng_;
  Simulation run_;
  std::vector<std::unique_ptr<Sequence>> spare_;
  size_t next_ = 0;
  double now_ = 0;
  PlacePace places_;
};

double rank_of(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  const auto count = static_cast<double>(values.size());
  const auto at = static_cast<int64_t>(std::max(std::ceil(share * count) - 1, 0.0));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

}  // namespace

GapCounts::GapCounts() : bins_(kBins, 0) {}

void GapCounts::add(double seconds) {
  static const double kScale = 1 / std::log(kBin);
  const double bin = std::log(std::max(seconds, kSmallestGap) / kSmallestGap) * kScale;
  ++bins_[std::min(static_cast<size_t>(bin), kBins - 1)];
  ++count_;
}

double GapCounts::percentile(double share) const {
  const auto wanted = static_cast<int64_t>(std::ceil(share * static_cast<double>(count_)));
  int64_t seen = 0;
  for (size_t b = 0; b < kBins && count_ > 0; ++b)
    if ((seen += bins_[b]) >= wanted)
      return kSmallestGap * std::pow(kBin, static_cast<double>(b) + 0.5);
  return 0;
}

Simulation simulate(std::span<const SimulatedRequest> requests, const StepCostModel& truth,
                    StepCostModel& costs, const SimulationOptions& options) {
  return Simulator(requests, truth, costs, options).run();
}

bool met_objectives(const SimulatedRequest& r, const SimulatedOutcome& o, double late_share) {
  if (o.end != SimulatedEnd::kServed) return false;
  if (r.ttft_objective > 0 && o.first_token > r.arrival + r.ttft_objective) return false;
  return o.late_gaps <= static_cast<int32_t>(std::ceil(late_share * o.gaps));
}

ServiceLevel service_level(std::span<const SimulatedRequest> requests, const Simulation& run,
                           double late_share) {
  ServiceLevel level;
  std::vector<double> waits;
  int64_t met = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SimulatedOutcome& o = run.outcomes[i];
    if (o.end == SimulatedEnd::kServed) {
      waits.push_back(o.first_token - requests[i].arrival);
      level.mean_ttft += waits.back();
    } else {
      ++level.refused;
    }
    if (met_objectives(requests[i], o, late_share)) ++met;
  }
  if (!waits.empty()) level.mean_ttft /= static_cast<double>(waits.size());
  level.p99_ttft = rank_of(waits, 0.99);
  level.p99_itl = run.gaps.percentile(0.99);
  level.p50_itl = run.gaps.percentile(0.5);
  if (requests.empty()) return level;
  level.met_share = static_cast<double>(met) / static_cast<double>(requests.size());
  // Goodput by the time in which requests came, the same for every policy.
  const double span = requests.back().arrival - requests.front().arrival;
  if (span > 0) level.goodput = static_cast<double>(met) / span;
  const double seconds = run.seconds - requests.front().arrival;
  if (seconds > 0) level.throughput = static_cast<double>(run.tokens) / seconds;
  return level;
}

}  // namespace spear
