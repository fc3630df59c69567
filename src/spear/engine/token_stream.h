// A sink that keeps what it is told until a reader takes it: the engine's thread writes, one other
// thread reads. Bounded: a reader that falls `capacity` events behind loses its request, which ends
// with kCancelled.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "spear/engine/request.h"

namespace spear {

// A Delta, or a piece of the prompt's log-probabilities, that owns what it holds.
struct StreamEvent {
  struct Token {
    int32_t token = -1;
    float logprob = 0;
    std::vector<TokenLogprob> top;
  };
  bool prompt = false;  // of the prompt; choice, text and finish say nothing then
  int32_t choice = 0;
  std::string text;
  std::vector<Token> tokens;
  std::optional<Finish> finish;
};

class TokenStream final : public TokenSink {
 public:
  // `choices`: answers that the request has (Request::n). `notify`, if any, is called on the
  // engine's thread after each event and must neither block nor throw.
  explicit TokenStream(int32_t choices = 1, size_t capacity = 4096,
                       std::function<void()> notify = {});

  // The next event; none when every answer has ended and was read, when `seconds` pass without one
  // (finished() tells which), or after close().
  std::optional<StreamEvent> next(double seconds);
  std::optional<StreamEvent> try_next() { return next(0); }
  // Every answer's last event was read, or close() was called.
  [[nodiscard]] bool finished() const;
  // The reader leaves: the request is cancelled at its next event.
  void close();

  bool on_delta(const Delta& delta) noexcept override;
  bool on_prompt(std::span<const OutputToken> tokens) noexcept override;

 private:
  bool push(StreamEvent event) noexcept;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StreamEvent> events_;
  size_t capacity_;
  int32_t unfinished_;
  bool closed_ = false;
  std::function<void()> notify_;
};

}  // namespace spear
