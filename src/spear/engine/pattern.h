// A regular language over characters as a tree: what regular expressions and JSON schemas are
// turned into, and what a byte automaton is built from. Subtrees may be shared; building expands
// them within a bound. Immutable: safe from every thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace spear {

struct CodeRange {
  uint32_t first = 0, last = 0;  // code points, both included
};

struct Pattern;
using PatternPointer = std::shared_ptr<const Pattern>;

struct Pattern {
  enum class Kind : uint8_t {
    kNothing,    // no text at all, not even the empty one
    kCharacter,  // one character of `ranges`
    kSequence,   // `parts`, one after the other; none: the empty text
    kChoice,     // one of `parts`
    kRepeat,     // parts[0], `least` to `most` times
    kSeparated,  // parts[0], any number of times but at least once, parts[1] between them
  };
  static constexpr int32_t kUnbounded = -1;

  Kind kind = Kind::kSequence;
  std::vector<CodeRange> ranges = {};
  std::vector<PatternPointer> parts = {};
  int32_t least = 0, most = kUnbounded;
};

PatternPointer nothing();
PatternPointer character(std::vector<CodeRange> ranges);
PatternPointer literal(std::string_view text);  // valid UTF-8
PatternPointer sequence(std::vector<PatternPointer> parts);
PatternPointer choice(std::vector<PatternPointer> parts);
PatternPointer repeat(PatternPointer part, int32_t least, int32_t most);
PatternPointer optional(PatternPointer part);
PatternPointer separated(PatternPointer part, PatternPointer separator);

// Sorted, joined where they touch.
std::vector<CodeRange> merged(std::vector<CodeRange> ranges);
// Every code point of Unicode but those of `ranges` (merged) and the surrogates.
std::vector<CodeRange> inverted(const std::vector<CodeRange>& ranges);

}  // namespace spear
