// spear.1, written from the same description as the help.
#pragma once

#include <string>

#include "spear/cli/app_description.h"

namespace spear {

std::string man_page(const AppDescription& app, const std::string& version);

}  // namespace spear
