// expects(): a promise between our own functions. A broken one is a bug of ours: it prints where
// and aborts, in release builds too. Never used on what a file, a flag or a request contains.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <source_location>

namespace spear {

inline void expects(bool condition,
                    std::source_location at = std::source_location::current()) noexcept {
  if (condition) [[likely]]
    return;
  std::fprintf(stderr, "spear: internal error: broken promise at %s:%u in %s\n", at.file_name(),
               static_cast<unsigned>(at.line()), at.function_name());
  std::abort();
}

}  // namespace spear
