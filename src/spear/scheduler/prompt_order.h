// In which order prompts get a step's rows: by turn, but a prompt that would make others (or
// itself) late is put after those that can still be in time, so that as many as possible are
// (Moore and Hodgson's rule: when something is late, the longest so far steps back). Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/scheduler/sequence.h"

namespace spear {

struct PromptPlace {
  Sequence* sequence = nullptr;
  int64_t running = -1;      // its place among those that run; -1: it waits
  double seconds = 0;        // that its prompt still takes, predicted
  double due = kNoDeadline;  // when its first token should be there
  bool fixed = false;        // never steps back: it waited long enough
  bool late = false;         // set by order_prompts()
};

// `places` by turn. Afterwards those in time by turn, then the late ones by turn. `kept` is
// workspace: nothing is allocated where it has room for all. Returns how many are late.
int64_t order_prompts(double now, std::vector<PromptPlace>& places, std::vector<int32_t>& kept);

}  // namespace spear
