// Characters that Unicode 15, 15.1 and 16 added to a general category, as the inside of a regular
// expression's class. The `tokenizers` package cuts texts by Unicode 16; Debian 12's PCRE2 knows
// Unicode 14. Every thread.
#pragma once

#include <string_view>

namespace spear {

// `category` as in \p{…}: "L", "Nd". Empty when nothing was added or the category is not tracked.
std::string_view unicode_additions(std::string_view category);

}  // namespace spear
