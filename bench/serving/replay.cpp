#include "replay.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "spear/base/rng.h"

namespace spear {
namespace {

// What all sinks of a replay write to: the engine's thread alone, until `left` is 0.
struct Notes {
  Simulation run;
  double start = 0;  // of the engine's clock
  std::mutex mutex;
  std::condition_variable done;
  int64_t left = 0;
};

class NotingSink final : public TokenSink {
 public:
  NotingSink(Engine& engine, Notes& notes, size_t index, double itl_objective)
      : engine_(engine), notes_(notes), index_(index), itl_objective_(itl_objective) {}

  bool on_delta(const Delta& delta) noexcept override {
    const double now = engine_.now() - notes_.start;
    SimulatedOutcome& o = notes_.run.outcomes[index_];
    if (!delta.tokens.empty()) {
      notes_.run.tokens += std::ssize(delta.tokens);
      if (o.first_token == 0) {
        o.first_token = now;
      } else {
        const double gap = now - last_;
        ++o.gaps;
        if (itl_objective_ > 0 && gap > itl_objective_) ++o.late_gaps;
        notes_.run.gaps.add(gap);
      }
      last_ = now;
    }
    if (delta.finish == nullptr) return true;
    o.finished = now;
    o.preemptions = delta.finish->preemptions;
    o.level = delta.finish->level;
    end();
    return true;
  }

 private:
  void end() {
    const std::lock_guard lock(notes_.mutex);
    if (--notes_.left == 0) notes_.done.notify_all();
  }
  Engine& engine_;
  Notes& notes_;
  size_t index_;
  double itl_objective_, last_ = 0;
};

Request request_of(const SimulatedRequest& from, Rng& rng, int64_t vocab) {
  Request request;
  request.prompt.resize(static_cast<size_t>(from.prompt));
  for (int32_t& token : request.prompt)
    token = static_cast<int32_t>(rng.below(static_cast<uint32_t>(vocab)));
  request.max_tokens = from.answer;
  request.sampling.temperature = 0;
  request.ignore_eos = true;
  request.priority = from.priority;
  request.ttft_objective = from.ttft_objective;
  request.itl_objective = from.itl_objective;
  request.full_quality = from.full_quality;
  return request;
}

}  // namespace

Simulation replay(Engine& engine, std::span<const SimulatedRequest> requests, uint64_t seed) {
  Notes notes;
  notes.run.outcomes.resize(requests.size());
  notes.left = std::ssize(requests);
  notes.start = engine.now();
  const EngineStats before = engine.stats();
  Rng rng(seed);
  for (size_t i = 0; i < requests.size(); ++i) {
    Request request = request_of(requests[i], rng, engine.limits().vocab_size);
    const double wait = notes.start + requests[i].arrival - engine.now();
    if (wait > 0) std::this_thread::sleep_for(std::chrono::duration<double>(wait));
    const Admission admission =
        engine.submit(std::move(request),
                      std::make_shared<NotingSink>(engine, notes, i, requests[i].itl_objective));
    if (admission.code == AdmissionCode::kAccepted) continue;
    notes.run.outcomes[i].end = admission.code == AdmissionCode::kTooLate
                                    ? SimulatedEnd::kRefused
                                    : SimulatedEnd::kQueueFull;
    const std::lock_guard lock(notes.mutex);
    --notes.left;
  }
  std::unique_lock lock(notes.mutex);
  notes.done.wait(lock, [&] { return notes.left == 0; });
  const EngineStats after = engine.stats();
  notes.run.seconds = engine.now() - notes.start;
  notes.run.steps = after.steps - before.steps;
  notes.run.preemptions = after.preemptions - before.preemptions;
  notes.run.steps_below_full = after.steps_below_full - before.steps_below_full;
  return std::move(notes.run);
}

}  // namespace spear
