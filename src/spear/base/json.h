// JSON behind one header. parse_json() is for hostile text: it bounds the depth, refuses duplicate
// keys, and returns an error that names the source and the byte. Include json_fwd.h where only the
// name is needed.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "spear/base/error.h"
#include "spear/base/json_fwd.h"

namespace spear {

inline constexpr size_t kMaxOrderedKeys = 4096;  // of one object, in parse_json()

// `source` is named in errors ("config.json"). Depth at most `max_depth`.
Result<Json> parse_json(std::string_view text, std::string_view source, int max_depth = 64);
Result<SortedJson> parse_sorted_json(std::string_view text, std::string_view source,
                                     int max_depth = 64);

// The text without a line break; bytes that are no UTF-8 become U+FFFD.
std::string one_line(const Json& json);

}  // namespace spear
