// Completion scripts for three shells, written from the same description as the help. Pulled models
// are completed by asking `spear list --names`.
#pragma once

#include <string>

#include "spear/cli/app_description.h"

namespace spear {

std::string bash_completion(const AppDescription& app);
std::string zsh_completion(const AppDescription& app);
std::string fish_completion(const AppDescription& app);

}  // namespace spear
