#include "spear/engine/byte_automaton.h"

#include <algorithm>
#include <span>

#include <fmt/format.h>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

struct Ends {
  int32_t begin = 0, end = 0;
};

std::string encoded(uint32_t point) {
  std::string bytes;
  append_utf8(bytes, point);
  return bytes;
}

// Calls visit(first, last) with the encodings of ranges whose bytes vary independently.
template <class Visit>
void split_utf8(uint32_t first, uint32_t last, const Visit& visit) {
  if (first > last) return;
  for (const uint32_t border : {0x7Fu, 0x7FFu, 0xD7FFu, 0xDFFFu, 0xFFFFu}) {
    if (first <= border && border < last) {
      split_utf8(first, border, visit);
      split_utf8(border + 1, last, visit);
      return;
    }
  }
  if (first >= 0xD800 && last <= 0xDFFF) return;
  const std::string low = encoded(first);
  for (size_t i = 1; i < low.size(); ++i) {
    const uint32_t mask = (1u << (6 * i)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      split_utf8(first, first | mask, visit);
      split_utf8((first | mask) + 1, last, visit);
      return;
    }
    if ((last & mask) != mask) {
      split_utf8(first, (last & ~mask) - 1, visit);
      split_utf8(last & ~mask, last, visit);
      return;
    }
  }
  visit(low, encoded(last));
}

}  // namespace

// Thompson's construction.
class ByteAutomaton::Builder {
 public:
  Ends add(const Pattern& p) {
    if (full()) return {};
    switch (p.kind) {
      case Pattern::Kind::kNothing:
        return {node(), node()};
      case Pattern::Kind::kCharacter:
        return characters(p.ranges);
      case Pattern::Kind::kSequence:
        return in_order(p.parts);
      case Pattern::Kind::kChoice:
        return one_of(p.parts);
      case Pattern::Kind::kRepeat:
        return repeated(p);
      case Pattern::Kind::kSeparated:
        return list(p);
    }
    return {};
  }

  [[nodiscard]] bool full() const { return edges.size() > kMostNodes; }

  std::vector<std::vector<Edge>> edges;
  std::vector<std::vector<int32_t>> jumps;

 private:
  int32_t node() {
    edges.emplace_back();
    jumps.emplace_back();
    return static_cast<int32_t>(edges.size()) - 1;
  }
  void jump(int32_t from, int32_t to) { jumps[static_cast<size_t>(from)].push_back(to); }

  Ends characters(const std::vector<CodeRange>& ranges) {
    const Ends ends{node(), node()};
    for (const CodeRange& range : ranges)
      split_utf8(range.first, range.last, [&](const std::string& low, const std::string& high) {
        int32_t at = ends.begin;
        for (size_t i = 0; i < low.size(); ++i) {
          const int32_t to = i + 1 == low.size() ? ends.end : node();
          edges[static_cast<size_t>(at)].push_back(
              {static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]), to});
          at = to;
        }
      });
    return ends;
  }

  Ends in_order(const std::vector<PatternPointer>& parts) {
    Ends all{node(), 0};
    all.end = all.begin;
    for (const PatternPointer& part : parts) append(all, add(*part));
    return all;
  }

  void append(Ends& all, Ends part) {
    jump(all.end, part.begin);
    all.end = part.end;
  }

  Ends one_of(const std::vector<PatternPointer>& parts) {
    const Ends ends{node(), node()};
    for (const PatternPointer& part : parts) {
      if (full()) break;
      const Ends one = add(*part);
      jump(ends.begin, one.begin);
      jump(one.end, ends.end);
    }
    return ends;
  }

  Ends repeated(const Pattern& p) {
    Ends all{node(), 0};
    all.end = all.begin;
    for (int32_t i = 0; i < p.least && !full(); ++i) append(all, add(*p.parts[0]));
    if (p.most == Pattern::kUnbounded) {
      const int32_t loop = node();
      jump(all.end, loop);
      const Ends one = add(*p.parts[0]);
      jump(loop, one.begin);
      jump(one.end, loop);
      all.end = loop;
      return all;
    }
    const int32_t end = node();
    for (int32_t i = p.least; i < p.most && !full(); ++i) {
      jump(all.end, end);
      append(all, add(*p.parts[0]));
    }
    jump(all.end, end);
    all.end = end;
    return all;
  }

  Ends list(const Pattern& p) {
    const Ends item = add(*p.parts[0]);
    const Ends between = add(*p.parts[1]);
    jump(item.end, between.begin);
    jump(between.end, item.begin);
    const Ends ends{node(), node()};
    jump(ends.begin, item.begin);
    jump(item.end, ends.end);
    return ends;
  }
};

Result<ByteAutomaton> ByteAutomaton::build(const Pattern& pattern) {
  Builder builder;
  const Ends whole = builder.add(pattern);
  if (builder.full())
    return fail(ErrorCode::kUsage,
                fmt::format("the constraint is too large: its automaton has more than {} nodes",
                            kMostNodes));
  // Only what leads to the end stays, so that no state is a trap.
  const size_t count = builder.edges.size();
  std::vector<std::vector<int32_t>> back(count);
  for (size_t n = 0; n < count; ++n) {
    for (const Edge& edge : builder.edges[n])
      back[static_cast<size_t>(edge.to)].push_back(static_cast<int32_t>(n));
    for (const int32_t to : builder.jumps[n])
      back[static_cast<size_t>(to)].push_back(static_cast<int32_t>(n));
  }
  std::vector<bool> useful(count, false);
  std::vector<int32_t> stack = {whole.end};
  useful[static_cast<size_t>(whole.end)] = true;
  while (!stack.empty()) {
    const int32_t n = stack.back();
    stack.pop_back();
    for (const int32_t from : back[static_cast<size_t>(n)]) {
      if (useful[static_cast<size_t>(from)]) continue;
      useful[static_cast<size_t>(from)] = true;
      stack.push_back(from);
    }
  }
  if (!useful[static_cast<size_t>(whole.begin)])
    return fail(ErrorCode::kUsage, "the constraint allows no text at all");

  ByteAutomaton a;
  for (size_t n = 0; n < count; ++n) {
    a.edge_begin_.push_back(static_cast<int32_t>(a.edges_.size()));
    a.jump_begin_.push_back(static_cast<int32_t>(a.jumps_.size()));
    for (const Edge& edge : builder.edges[n])
      if (useful[static_cast<size_t>(edge.to)]) a.edges_.push_back(edge);
    for (const int32_t to : builder.jumps[n])
      if (useful[static_cast<size_t>(to)]) a.jumps_.push_back(to);
  }
  a.edge_begin_.push_back(static_cast<int32_t>(a.edges_.size()));
  a.jump_begin_.push_back(static_cast<int32_t>(a.jumps_.size()));
  a.final_ = whole.end;
  a.visited_.assign(count, 0);
  a.state_of({whole.begin});
  return a;
}

// The state of everything that is reached from `seeds` for nothing.
int32_t ByteAutomaton::state_of(std::vector<int32_t> seeds) {
  ++search_;
  State state;
  std::vector<int32_t>& stack = seeds;
  for (const int32_t n : stack) visited_[static_cast<size_t>(n)] = search_;
  while (!stack.empty()) {
    const auto n = static_cast<size_t>(stack.back());
    stack.pop_back();
    ++work_;
    if (static_cast<int32_t>(n) == final_) state.accepts = true;
    if (edge_begin_[n] != edge_begin_[n + 1]) state.nodes.push_back(static_cast<int32_t>(n));
    for (int32_t j = jump_begin_[n]; j < jump_begin_[n + 1]; ++j) {
      const int32_t to = jumps_[static_cast<size_t>(j)];
      if (visited_[static_cast<size_t>(to)] == search_) continue;
      visited_[static_cast<size_t>(to)] = search_;
      stack.push_back(to);
    }
  }
  std::ranges::sort(state.nodes);
  uint64_t hash = state.accepts ? 1 : 2;
  for (const int32_t n : state.nodes)
    hash = (hash ^ static_cast<uint32_t>(n)) * 0x9e3779b97f4a7c15ULL + (hash >> 29);
  const auto [first, last] = known_.equal_range(hash);
  for (auto at = first; at != last; ++at) {
    const State& other = states_[static_cast<size_t>(at->second)];
    if (other.accepts == state.accepts && other.nodes == state.nodes) return at->second;
  }
  held_nodes_ += state.nodes.size();
  if (states_.size() >= kMostStates || held_nodes_ > kMostHeld) return kTooMany;
  state.next.fill(kUnknown);
  const auto id = static_cast<int32_t>(states_.size());
  states_.push_back(std::move(state));
  known_.emplace(hash, id);
  return id;
}

int32_t ByteAutomaton::compute(int32_t state, uint8_t byte) {
  if (work_ > kMostWork) return kTooMany;
  std::vector<int32_t> seeds;
  for (const int32_t n : states_[static_cast<size_t>(state)].nodes) {
    const auto at = static_cast<size_t>(n);
    ++work_;
    for (int32_t e = edge_begin_[at]; e < edge_begin_[at + 1]; ++e) {
      const Edge& edge = edges_[static_cast<size_t>(e)];
      if (byte >= edge.first && byte <= edge.last) seeds.push_back(edge.to);
    }
  }
  if (seeds.empty()) return kDead;
  std::ranges::sort(seeds);
  seeds.erase(std::unique(seeds.begin(), seeds.end()), seeds.end());
  return state_of(std::move(seeds));
}

int32_t ByteAutomaton::next(int32_t state, uint8_t byte) {
  const int32_t known = states_[static_cast<size_t>(state)].next[byte];
  if (known != kUnknown) return known;
  const int32_t to = compute(state, byte);
  states_[static_cast<size_t>(state)].next[byte] = to;
  return to;
}

bool ByteAutomaton::continues(int32_t state) {
  return !states_[static_cast<size_t>(state)].nodes.empty();
}

}  // namespace spear
