// The engine's thread: takes requests in, plans, runs the model, chooses tokens, gives them out.
// Everything here but the mailbox belongs to that thread.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "spear/engine/choose_tokens.h"
#include "spear/engine/delivery.h"
#include "spear/engine/engine.h"
#include "spear/engine/mailbox.h"
#include "spear/scheduler/forecast.h"
#include "spear/scheduler/scheduler.h"

namespace spear {

class Engine::Loop {
 public:
  Loop(StepModel& model, const Tokenizer* tokenizer, const EngineOptions& options);
  ~Loop();

  // Any thread.
  Admission submit(Request request, std::shared_ptr<TokenSink> sink);
  [[nodiscard]] Admission foresee(int64_t prompt_tokens, double ttft_objective,
                                  int32_t priority) const;
  Mailbox& mailbox() { return mailbox_; }
  [[nodiscard]] const Mailbox& mailbox() const { return mailbox_; }
  [[nodiscard]] bool healthy() const { return !failed_.load(std::memory_order_relaxed); }
  [[nodiscard]] const RequestLimits& limits() const { return limits_; }
  [[nodiscard]] const Tokenizer* tokenizer() const { return tokenizer_; }
  VocabularyPointer vocabulary();
  [[nodiscard]] double now() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  void run();
  void take_in(std::vector<std::unique_ptr<ActiveRequest>>& fresh);
  void drop_cancelled();
  void step();
  void propose();
  void build();
  void note_starts();
  void handle(const StepRows& rows);
  size_t take_tokens(Answer& answer, Finish& finish, bool& ended);
  void fork_siblings(Answer& first);
  void end(Answer& answer, size_t tokens, Finish finish);
  void sweep();
  void check_objectives() const;
  void fail_all(const std::string& message);
  void publish();

  StepModel& model_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  RequestLimits limits_;
  std::chrono::steady_clock::time_point start_;
  LinearCosts no_costs_;
  StepCostModel& costs_;
  Scheduler scheduler_;
  ScheduledBatch batch_;
  Mailbox mailbox_;
  TokenChooser chooser_;
  EngineStats counts_;
  Delivery delivery_;
  std::vector<std::unique_ptr<ActiveRequest>> active_;
  std::atomic<bool> failed_ = false;
  std::atomic<uint64_t> submitted_ = 0;
  bool some_ended_ = false;
  PlacePace places_;
  // Of the step under way.
  std::vector<int32_t> tokens_, logit_rows_;
  std::vector<AttentionSequence> sequences_;
  std::vector<StepRows> rows_;
  std::vector<uint8_t> bare_;
  std::once_flag vocabulary_once_;
  VocabularyPointer vocabulary_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace spear
