// Regular expressions and JSON schemas as clients send them. The first byte says which of the two;
// what is taken is built and walked.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "spear/engine/byte_automaton.h"
#include "spear/engine/json_schema.h"
#include "spear/engine/regex.h"

namespace {

// Follows live bytes for a while: a state that cannot be left must accept.
void walk(const spear::Pattern& pattern) {
  spear::Result<spear::ByteAutomaton> automaton = spear::ByteAutomaton::build(pattern);
  if (!automaton) return;
  int32_t state = automaton->start();
  for (int step = 0; step < 64; ++step) {
    int32_t next = spear::ByteAutomaton::kDead;
    for (int byte = 0; byte < 256 && next < 0; ++byte) {
      next = automaton->next(state, static_cast<uint8_t>((byte + step * 37) % 256));
      if (next == spear::ByteAutomaton::kTooMany) return;
    }
    if (next < 0) {
      if (!automaton->accepts(state)) std::abort();
      return;
    }
    state = next;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'r') {
    if (const auto regex = spear::parse_regex(text)) walk(*regex->pattern);
  } else {
    if (const auto schema = spear::parse_json_schema(text)) walk(**schema);
  }
  return 0;
}
