// `spear --help` and `spear COMMAND --help`, written from the same description as the man page.
#pragma once

#include <string>

#include "spear/cli/app_description.h"

namespace spear {

std::string program_help(const AppDescription& app);
std::string command_help(const AppDescription& app, const CommandDescription& command);

// Text in lines of at most `width` columns, each after the first indented by `indent`.
std::string wrapped(std::string_view text, size_t width, size_t indent);

}  // namespace spear
