// The engine: requests come in from any thread, are batched step by step over one model, and their
// tokens go out to sinks. One thread of its own owns the scheduler, the pages and every sequence;
// submit(), cancel(), drain(), stats() and healthy() are safe from any thread and never wait for a
// step. Every queue is bounded. A request that fails takes no other one with it; a device that
// fails ends all requests with kError, after which healthy() is false and submit() says kFailed.
//
//   DecoderModel model(decoder, {.pages = 256});
//   Engine engine(model, &tokenizer, {.max_running = 32});
//   auto stream = std::make_shared<TokenStream>();
//   Admission a = engine.submit(std::move(request), stream);
//   if (a.code == AdmissionCode::kAccepted) while (auto event = stream->next(1.0)) …
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "spear/engine/request.h"
#include "spear/engine/step_model.h"
#include "spear/scheduler/cost_model.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

class ThreadPool;
class TokenTrie;

struct EngineOptions {
  int32_t max_running = 32;                       // answers that run together
  int32_t max_waiting = 1024;                     // requests that wait for their first step
  int64_t max_waiting_tokens = int64_t{1} << 21;  // prompts and answers of those, together
  int64_t max_context = 0;                        // at most; 0: what the model and the pool allow
  int64_t token_budget = 512;                     // rows of a step
  int64_t max_draft = 0;                          // tokens guessed by prompt look-up; 0: none
  // The tokens of a request that brings a seed (or is greedy) do not depend on what else runs, ran
  // or waits. Wants a model whose rows stand alone (DecoderModelOptions::rows_stand_alone).
  bool deterministic = false;
  bool check_invariants = false;  // after every step: a broken one fails the engine (tests)
  uint64_t seed = 0;              // of requests that bring none
  std::vector<int32_t> end_ids;   // the model's own end tokens; the tokenizer's are added
  RequestLimits limits;           // vocab_size and max_context are filled by the engine
  // Predicts steps and learns from them (measure_costs.h makes one); must outlive the engine, whose
  // thread alone uses it. Null: no objective shapes a step, nothing is refused by its time.
  StepCostModel* costs = nullptr;
  // Objectives of requests that bring none, seconds; 0: none. Throws Failure(kUsage) where no step
  // is that fast.
  double ttft_objective = 0, itl_objective = 0;
  bool refuse_late = true;   // refuse at once what cannot have its first token in time
  double patience = 10;      // SchedulerOptions::patience
  int64_t static_chunk = 0;  // SchedulerOptions::static_chunk: for comparison
  // Under load compensators may be switched off, least quality per time first, to this level of
  // StepModel::levels(); 0: never.
  int32_t max_level = 0;
  ThreadPool* pool = nullptr;  // the model's own, used between steps to choose tokens; null: none
  // Sees every step on the engine's thread: what ran and the seconds it took.
  std::function<void(const StepShape&, double)> on_step;
};

enum class AdmissionCode : uint8_t {
  kAccepted,
  kInvalid,    // Admission::message names the field
  kTooLong,    // prompt and answer exceed the context or the pool
  kQueueFull,  // later, perhaps
  kTooLate,    // its first token would not come in time; after Admission::retry_after it might
  kDraining,   // not here any more
  kFailed,     // the device is gone
};

struct Admission {
  AdmissionCode code = AdmissionCode::kAccepted;
  uint64_t id = 0;
  std::string message;       // one sentence where it is not accepted
  double retry_after = 0;    // seconds, of kTooLate
  double expected_ttft = 0;  // seconds as predicted; 0: unknown
};

struct EngineStats {
  int32_t running = 0, waiting = 0;                     // answers; requests
  int64_t waiting_tokens = 0;                           // that those may come to
  int32_t pages = 0, used_pages = 0, cached_pages = 0;  // cached: free, but worth keeping
  int64_t steps = 0;
  int64_t prompt_tokens = 0, computed_prompt_tokens = 0, generated_tokens = 0;
  int64_t drafted_tokens = 0, accepted_drafts = 0;
  int64_t prefix_queries = 0, prefix_hits = 0;  // tokens
  int64_t preemptions = 0;
  int64_t finished_stop = 0, finished_length = 0, cancelled = 0, errors = 0;
  double last_step_seconds = 0, busy_seconds = 0;
  int64_t refused_late = 0;
  // Of the cost model: mean relative error of its predictions lately, and the factor with which it
  // plans for deadlines.
  double cost_error = 0, cost_headroom = 1;
  double ttft_objective = 0, itl_objective = 0;  // the engine's own, seconds; 0: none
  int32_t level = 0;                             // of the last step
  int64_t steps_below_full = 0;                  // with compensators off
};

class Engine {
 public:
  // `model` must outlive the engine and be used by nobody else. Without a tokenizer there is no
  // text: stop strings and constraints are then refused. Throws Failure(kUsage) for options that
  // make no sense, and for a pool that is too small for one sequence of max_context.
  Engine(StepModel& model, const Tokenizer* tokenizer, const EngineOptions& options);
  ~Engine();  // cancels what runs and joins
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The sink hears of an accepted request until a Delta with finish for each of its n answers.
  Admission submit(Request request, std::shared_ptr<TokenSink> sink);
  // What submit() would say about the time alone, for a prompt of at least so many tokens:
  // kAccepted or kTooLate. Microseconds: to be asked before a prompt is tokenized.
  [[nodiscard]] Admission foresee(int64_t prompt_tokens, double ttft_objective,
                                  int32_t priority) const;
  // Ends a request soon (at the next step), in whatever state; unknown ids are ignored.
  void cancel(uint64_t id);
  // No more requests are taken; waits until those here have ended, at most `seconds`, then cancels
  // the rest and waits for that. Returns whether all ended by themselves.
  bool drain(double seconds);

  [[nodiscard]] EngineStats stats() const;
  [[nodiscard]] bool healthy() const;
  // What requests may ask for, max_context included.
  [[nodiscard]] const RequestLimits& limits() const;
  // Seconds of the clock that Finish and plan() speak of: steady, zero when the engine started.
  [[nodiscard]] double now() const;

  [[nodiscard]] const Tokenizer* tokenizer() const;
  // What constraints are compiled with (constraint.h), anywhere; made at the first call. Null
  // without a tokenizer.
  std::shared_ptr<const TokenTrie> vocabulary();

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace spear
