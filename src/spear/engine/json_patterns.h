// Patterns of JSON's own grammar: white space, strings, numbers, values. Pure functions, every
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "spear/engine/pattern.h"

namespace spear::json {

PatternPointer space();  // between tokens
PatternPointer null();
PatternPointer boolean();
PatternPointer integer();
PatternPointer number();
// A string of `least` to `most` characters, each written as itself or escaped.
PatternPointer string(int32_t least = 0, int32_t most = Pattern::kUnbounded);
// The string whose content is `content`: characters that JSON must escape are written so.
PatternPointer quoted(const PatternPointer& content);
// One text as a JSON string, written the shortest way.
PatternPointer quoted_literal(std::string_view text);
// Integers from `low` to `high`, without leading zeros; absent: without a bound.
PatternPointer integer_between(std::optional<int64_t> low, std::optional<int64_t> high);
PatternPointer array(const PatternPointer& item, int32_t least, int32_t most);
PatternPointer object_of(const PatternPointer& value);  // any names
PatternPointer value(int depth);                        // anything

}  // namespace spear::json
