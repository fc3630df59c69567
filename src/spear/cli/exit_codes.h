// The exit codes, once: for main, for --json errors, for the man page.
#pragma once

#include <span>
#include <string_view>

#include "spear/base/error.h"

namespace spear {

struct ExitCode {
  int code;
  std::string_view name;
  std::string_view says;
};

std::span<const ExitCode> exit_codes();
std::string_view exit_code_name(ErrorCode code);

}  // namespace spear
