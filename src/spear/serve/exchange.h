// A reply that takes its time: asked again and again for what is ready, by the connection's thread
// alone, whenever its wake-up was called.
#pragma once

#include <cstdint>
#include <string>

#include "spear/serve/http_message.h"

namespace spear {

enum class ExchangeState : uint8_t {
  kWaiting,  // nothing new
  kReply,    // `reply` is the whole reply, nothing follows
  kStream,   // `out` holds more of an event stream
  kEnd,      // the same, and nothing follows
};

// What a log line says of a request beside its route and status: numbers, never its text.
struct ExchangeRecord {
  int64_t prompt_tokens = 0, cached_tokens = 0, tokens = 0;
  double first_token_seconds = 0;
  const char* finish = "";  // how its (last) answer ended
  bool stream = false;
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual ExchangeState poll(HttpReply& reply, std::string& out) = 0;
  // The client has gone, or may wait no longer: the work is given up.
  virtual void abandon() noexcept = 0;
  [[nodiscard]] virtual bool streams() const = 0;
  [[nodiscard]] virtual ExchangeRecord record() const = 0;
};

}  // namespace spear
