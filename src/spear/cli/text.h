// Small forms of text that several commands print.
#pragma once

#include <cstdint>
#include <string>

#include "spear/base/json.h"

namespace spear {

std::string size_text(int64_t bytes);  // "98.4 MB"
std::string json_text(
    const Json& json);  // indented, one newline at the end; broken UTF-8 is replaced

}  // namespace spear
