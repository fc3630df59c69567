// Unicode normalization forms, exactly as the `tokenizers` package has them. Pure functions, every
// thread.
#pragma once

#include <string>
#include <string_view>

namespace spear {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Invalid UTF-8 passes through unchanged and keeps its neighbours apart.
std::string unicode_form(std::string_view text, UnicodeForm form);

}  // namespace spear
