// Text from a file or a user, made fit for an error message: in quotes, cut to a length, with
// control characters and invalid UTF-8 shown as \x escapes, so that a hostile name can neither
// flood nor control a terminal. Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace spear {

// At most `limit` bytes of `text` are shown; a cut is marked by "..." after the closing quote.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace spear
