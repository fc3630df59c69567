// Regular expressions to patterns: literals, escapes, classes, groups, alternation, repetition.
// What no regular language has (back references, look-around), and word borders, flags and lazy
// choice of matches, which mean nothing for a whole text, are refused by name (lazy repetition is
// taken: it describes the same texts). Pure functions, every thread.
#pragma once

#include <string_view>

#include "spear/base/error.h"
#include "spear/engine/pattern.h"

namespace spear {

struct Regex {
  PatternPointer pattern;
  bool begins = false, ends = false;  // stood between ^ and $
};

// kUsage naming the byte where it goes wrong. At most 16 KiB, 64 groups deep, counts up to 1000.
Result<Regex> parse_regex(std::string_view text);

}  // namespace spear
