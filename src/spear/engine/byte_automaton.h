// Recognises a regular language byte by byte. Built from a Pattern as a nondeterministic automaton
// of at most kMostNodes nodes; states of the deterministic one are made when they are first
// reached, at most kMostStates, holding at most kMostHeld nodes. States from which no text of the
// language can be completed are dead. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "spear/base/error.h"
#include "spear/engine/pattern.h"

namespace spear {

class ByteAutomaton {
 public:
  static constexpr int32_t kDead = -1;
  static constexpr int32_t kTooMany = -2;  // the bound on states is reached
  static constexpr size_t kMostNodes = 200'000;
  static constexpr size_t kMostStates = 8192;
  static constexpr size_t kMostHeld = 4'000'000;
  static constexpr int64_t kMostWork = 50'000'000;  // nodes looked at to make states

  // kUsage when the pattern is too large, or no text at all belongs to it.
  static Result<ByteAutomaton> build(const Pattern& pattern);

  [[nodiscard]] int32_t start() const { return 0; }
  int32_t next(int32_t state, uint8_t byte);
  [[nodiscard]] bool accepts(int32_t state) const {
    return states_[static_cast<size_t>(state)].accepts;
  }
  // Whether a longer text may follow.
  bool continues(int32_t state);
  [[nodiscard]] size_t states() const { return states_.size(); }

 private:
  class Builder;
  struct Edge {
    uint8_t first = 0, last = 0;
    int32_t to = -1;
  };
  struct State {
    std::vector<int32_t> nodes;  // that have edges, sorted
    bool accepts = false;
    std::array<int32_t, 256> next{};
  };
  static constexpr int32_t kUnknown = -3;

  int32_t state_of(std::vector<int32_t> seeds);
  int32_t compute(int32_t state, uint8_t byte);

  // Nodes: a range of edges each, and of nodes that are reached for nothing.
  std::vector<int32_t> edge_begin_, jump_begin_;
  std::vector<Edge> edges_;
  std::vector<int32_t> jumps_;
  int32_t final_ = 0;

  std::vector<State> states_;
  std::unordered_multimap<uint64_t, int32_t> known_;  // hash of nodes → state
  std::vector<uint32_t> visited_;                     // [nodes] the last search that saw it
  uint32_t search_ = 0;
  int64_t work_ = 0;
  size_t held_nodes_ = 0;  // in all states
};

}  // namespace spear
