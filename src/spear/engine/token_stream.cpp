#include "spear/engine/token_stream.h"

#include <chrono>
#include <exception>

namespace spear {
namespace {

std::vector<StreamEvent::Token> owned(std::span<const OutputToken> tokens) {
  std::vector<StreamEvent::Token> out;
  out.reserve(tokens.size());
  for (const OutputToken& t : tokens)
    out.push_back({t.token, t.logprob, {t.top.begin(), t.top.end()}});
  return out;
}

}  // namespace

TokenStream::TokenStream(int32_t choices, size_t capacity, std::function<void()> notify)
    : capacity_(capacity), unfinished_(choices), notify_(std::move(notify)) {}

bool TokenStream::push(StreamEvent event) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    // The last event of an answer always finds room: there are as many as answers.
    if (closed_ || (events_.size() >= capacity_ && !event.finish)) return false;
    events_.push_back(std::move(event));
  } catch (const std::exception&) {
    return false;  // no memory left: the request is given up
  }
  changed_.notify_one();
  if (notify_) notify_();
  return true;
}

bool TokenStream::on_delta(const Delta& delta) noexcept {
  try {
    StreamEvent event;
    event.choice = delta.choice;
    event.text = delta.text;
    event.tokens = owned(delta.tokens);
    if (delta.finish != nullptr) event.finish = *delta.finish;
    return push(std::move(event));
  } catch (const std::exception&) {
    return false;
  }
}

bool TokenStream::on_prompt(std::span<const OutputToken> tokens) noexcept {
  try {
    StreamEvent event;
    event.prompt = true;
    event.tokens = owned(tokens);
    return push(std::move(event));
  } catch (const std::exception&) {
    return false;
  }
}

std::optional<StreamEvent> TokenStream::next(double seconds) {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return closed_ || !events_.empty() || unfinished_ <= 0; };
  changed_.wait_for(lock, std::chrono::duration<double>(seconds), ready);
  if (closed_ || events_.empty()) return std::nullopt;
  std::optional<StreamEvent> event = std::move(events_.front());
  events_.pop_front();
  if (event->finish) --unfinished_;
  return event;
}

bool TokenStream::finished() const {
  const std::lock_guard lock(mutex_);
  return closed_ || unfinished_ <= 0;
}

void TokenStream::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  events_.clear();
  changed_.notify_all();
}

}  // namespace spear
