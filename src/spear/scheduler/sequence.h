// What the scheduler knows of one run of tokens: numbers and pages, nothing of text or sampling.
// Made by whoever submits, then owned by the engine's thread alone. Its vectors are reserved for
// its longest life when it is made, so that nothing grows in the step loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace spear {

enum class SequenceState : uint8_t {
  kNew,       // not handed to a scheduler yet
  kWaiting,   // holds no pages; new, or preempted and to be computed again
  kRunning,   // holds pages; some of its tokens may still have to be computed
  kFinished,  // given back
};

inline constexpr double kNoDeadline = std::numeric_limits<double>::infinity();

// Page numbers by position: token t stands in pages[t / page_size].
using BlockTable = std::vector<int32_t>;

struct Sequence {
  // What was asked.
  uint64_t id = 0;
  int32_t priority = 0;  // higher runs first and is preempted last
  double arrival = 0;    // seconds of the engine's clock; among equals the older first
  double turn = 0;       // set by Scheduler::add(): who is served first
  double ttft_deadline = kNoDeadline;  // when the first token should be there
  double itl_objective = kNoDeadline;  // seconds that may lie between two tokens
  int64_t max_tokens = 0;              // prompt and answer together
  int64_t prompt_tokens = 0;
  uint64_t cache_salt = 0;        // prefixes are shared among equal salts only
  bool use_prefix_cache = true;   // may start on pages that others computed
  bool wants_all_logits = false;  // of every prompt token, not the last one only
  bool full_quality = false;      // no compensator may be switched off in its steps
  void* owner = nullptr;          // whoever made it; the scheduler does not look
  int32_t siblings = 0;           // sequences that will fork from this one: their places are kept

  // Where it stands.
  SequenceState state = SequenceState::kNew;
  std::vector<int32_t> tokens;  // the prompt, then what was generated
  std::vector<int32_t> draft;   // guesses of what follows; checked by the next step
  int64_t computed = 0;         // tokens whose keys and values stand in pages
  BlockTable pages;
  std::vector<uint64_t> nodes;  // of the prefix cache, one for each full page; 0: not cached
  double last_token = 0;        // when its newest token was handed out
  bool degraded = false;        // some of its pages were computed with compensators off
  int32_t preemptions = 0;
  int64_t cached_tokens = 0;  // found in the prefix cache when it started first

  [[nodiscard]] int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  [[nodiscard]] int64_t pending() const { return length() - computed; }
  // Nothing but its newest token is to be computed: it answers.
  [[nodiscard]] bool decoding() const { return pending() == 1 && length() > prompt_tokens; }
};

// Runs before: the earlier turn, then submitted earlier. A strict order that time does not change.
inline bool runs_before(const Sequence& a, const Sequence& b) {
  if (a.turn != b.turn) return a.turn < b.turn;
  return a.id < b.id;
}

// The turn: when the first token is due, at most `patience` seconds after arrival (which is also
// what a request without an objective gets), and `patience` earlier for each step of priority. So a
// request is overtaken only by those that arrive within patience · (1 + what their priority is
// higher) after it, however many they are: nobody starves.
inline double turn_of(const Sequence& s, double patience) {
  const double due = std::min(s.ttft_deadline, s.arrival + patience);
  return due - patience * static_cast<double>(s.priority);
}

// Reserves everything that the sequence can come to hold.
inline void reserve_for_life(Sequence& s, int64_t page_size, int64_t max_draft) {
  const auto pages = static_cast<size_t>((s.max_tokens + max_draft + page_size) / page_size + 1);
  s.tokens.reserve(static_cast<size_t>(s.max_tokens + 1));
  s.draft.reserve(static_cast<size_t>(max_draft));
  s.pages.reserve(pages);
  s.nodes.reserve(pages);
}

}  // namespace spear
