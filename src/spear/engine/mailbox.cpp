#include "spear/engine/mailbox.h"

#include <chrono>

namespace spear {

Mailbox::Mailbox(int32_t max_waiting, int64_t max_waiting_tokens)
    : max_waiting_(max_waiting), max_waiting_tokens_(max_waiting_tokens) {
  incoming_.reserve(static_cast<size_t>(max_waiting));
  queued_.reserve(static_cast<size_t>(max_waiting));
}

AdmissionCode Mailbox::put(std::unique_ptr<ActiveRequest> request, uint64_t& id) {
  const std::lock_guard lock(mutex_);
  if (closed_ != AdmissionCode::kAccepted) return closed_;
  if (waiting_ >= max_waiting_) return AdmissionCode::kQueueFull;
  // One that alone is larger than the bound may wait alone.
  if (waiting_ > 0 && waiting_tokens_ + request->tokens_at_most > max_waiting_tokens_)
    return AdmissionCode::kQueueFull;
  id = request->id = next_id_++;
  ++waiting_;
  waiting_tokens_ += request->tokens_at_most;
  const Sequence& first = request->answers[0]->sequence;
  queued_.push_back({id, first.turn, first.prompt_tokens});
  alive_.emplace(id, request.get());
  incoming_.push_back(std::move(request));
  wake_.notify_one();
  return AdmissionCode::kAccepted;
}

double Mailbox::expected_ttft(double turn, int64_t rows) const {
  const std::lock_guard lock(mutex_);
  int64_t rows_ahead = 0, ahead = 0;
  for (const Queued& q : queued_) {
    if (q.turn > turn) continue;
    rows_ahead += q.rows;
    ++ahead;
  }
  return seconds_to_first_token(load_, rows_ahead, ahead, rows);
}

void Mailbox::count_refused() {
  const std::lock_guard lock(mutex_);
  ++refused_late_;
}

void Mailbox::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = alive_.find(id);
  if (found == alive_.end()) return;
  found->second->cancelled.store(true, std::memory_order_relaxed);
  cancellations_ = true;
  wake_.notify_one();
}

void Mailbox::cancel_all() {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, request] : alive_)
    request->cancelled.store(true, std::memory_order_relaxed);
  cancellations_ = true;
  wake_.notify_one();
}

void Mailbox::close(AdmissionCode answer) {
  const std::lock_guard lock(mutex_);
  if (closed_ != AdmissionCode::kFailed) closed_ = answer;
}

bool Mailbox::wait_until_idle(double seconds) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, std::chrono::duration<double>(seconds),
                        [this] { return alive_.empty(); });
}

bool Mailbox::take(bool busy, std::vector<std::unique_ptr<ActiveRequest>>& into) {
  std::unique_lock lock(mutex_);
  if (!busy) wake_.wait(lock, [this] { return stopped_ || cancellations_ || !incoming_.empty(); });
  for (auto& request : incoming_) into.push_back(std::move(request));
  incoming_.clear();
  return !stopped_;
}

bool Mailbox::take_cancellations() {
  const std::lock_guard lock(mutex_);
  return std::exchange(cancellations_, false);
}

void Mailbox::leave_queue(const ActiveRequest& request) {
  --waiting_;
  waiting_tokens_ -= request.tokens_at_most;
  std::erase_if(queued_, [&](const Queued& q) { return q.id == request.id; });
}

void Mailbox::started(const ActiveRequest& request) {
  const std::lock_guard lock(mutex_);
  leave_queue(request);
}

void Mailbox::ended(const ActiveRequest& request) {
  const std::lock_guard lock(mutex_);
  if (!request.has_started) leave_queue(request);
  alive_.erase(request.id);
  if (alive_.empty()) idle_.notify_all();
}

void Mailbox::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  wake_.notify_one();
}

void Mailbox::publish(const EngineStats& stats) {
  const std::lock_guard lock(mutex_);
  stats_ = stats;
}

void Mailbox::publish(const LoadForecast& load) {
  const std::lock_guard lock(mutex_);
  load_ = load;
}

EngineStats Mailbox::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting = waiting_;
  stats.waiting_tokens = waiting_tokens_;
  stats.refused_late = refused_late_;
  return stats;
}

}  // namespace spear
