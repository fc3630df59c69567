// What stands between clients and the engine's thread: requests that wait to be taken in, the ones
// that are alive, cancellations, counts. Every member is safe from every thread; nobody waits
// longer than a short lock. Bounded by requests and by their tokens.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "spear/engine/answer.h"
#include "spear/engine/engine.h"
#include "spear/scheduler/forecast.h"

namespace spear {

class Mailbox {
 public:
  Mailbox(int32_t max_waiting, int64_t max_waiting_tokens);

  // A client's side. put() gives the request its id.
  AdmissionCode put(std::unique_ptr<ActiveRequest> request, uint64_t& id);
  // Seconds until the first token of a prompt of `rows` that would now be queued with this turn.
  [[nodiscard]] double expected_ttft(double turn, int64_t rows) const;
  void count_refused();
  void cancel(uint64_t id);
  void cancel_all();
  void close(AdmissionCode answer);  // what put() says from now on
  // Whether everything ended within `seconds`.
  bool wait_until_idle(double seconds);

  // The engine's side. Waits for something to do unless `busy`; false: stop() was called.
  bool take(bool busy, std::vector<std::unique_ptr<ActiveRequest>>& into);
  bool take_cancellations();  // whether some request was cancelled since the last call
  void started(const ActiveRequest& request);
  void ended(const ActiveRequest& request);
  void stop();

  void publish(const EngineStats& stats);
  void publish(const LoadForecast& load);
  [[nodiscard]] EngineStats stats() const;

 private:
  struct Queued {
    uint64_t id = 0;
    double turn = 0;
    int64_t rows = 0;
  };
  void leave_queue(const ActiveRequest& request);

  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::vector<std::unique_ptr<ActiveRequest>> incoming_;
  std::unordered_map<uint64_t, ActiveRequest*> alive_;
  EngineStats stats_;
  LoadForecast load_;
  std::vector<Queued> queued_;  // those that wait for their first step
  int64_t refused_late_ = 0;
  int32_t max_waiting_, waiting_ = 0;
  int64_t max_waiting_tokens_, waiting_tokens_ = 0;
  uint64_t next_id_ = 1;
  AdmissionCode closed_ = AdmissionCode::kAccepted;
  bool cancellations_ = false, stopped_ = false;
};

}  // namespace spear
