// JSON schemas to patterns: every JSON text of the pattern is an instance of the schema. What is
// taken: type (one or several), enum, const, properties in their order, required,
// additionalProperties, items, minItems, maxItems, prefixItems, minLength, maxLength, pattern,
// format (date, time, date-time, uuid, ipv4), minimum, maximum and their exclusive forms for
// integers, anyOf, oneOf whose branches cannot both hold, allOf of one, $ref into the same schema
// (recursion to a depth of six), and annotations. Anything else is refused by its name. Between
// tokens of JSON there may be a space, or a line end and up to sixteen spaces. Pure functions,
// every thread.
#pragma once

#include <string_view>

#include "spear/base/error.h"
#include "spear/engine/pattern.h"

namespace spear {

// kUsage naming the place ("$.properties.name") and the keyword. At most 64 KiB, 64 deep.
Result<PatternPointer> parse_json_schema(std::string_view schema);
// Any JSON object whose values nest at most `depth` deep.
PatternPointer any_json_object(int depth);

}  // namespace spear
