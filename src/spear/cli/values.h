// Values as people type them on the command line.
#pragma once

#include <string>
#include <string_view>

namespace spear {

// "1%", "0.5 %", "0.01" -> 0.01. Throws Failure(kUsage) naming `option`.
double parse_share(std::string_view text, std::string_view option);

}  // namespace spear
