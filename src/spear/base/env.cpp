#include "spear/base/env.h"

#include <cstdlib>

namespace spear {
namespace {

std::string variable(const char* name, const char* otherwise = "") {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

}  // namespace

Environment read_environment() {
  Environment env;
  if (const std::string own = variable("SPEAR_CACHE"); !own.empty()) {
    env.cache_dir = own;
  } else if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) {
    env.cache_dir = std::filesystem::path(xdg) / "spear";
  } else {
    env.cache_dir = std::filesystem::path(variable("HOME", ".")) / ".cache" / "spear";
  }
  env.hub_token = variable("HF_TOKEN");
  env.hub_endpoint = variable("HF_ENDPOINT", "https://huggingface.co");
  env.data_dir = variable("SPEAR_DATA");
  env.force_kernel = variable("SPEAR_FORCE_KERNEL");
  env.python = variable("SPEAR_PYTHON", "python3");
  env.api_key = variable("SPEAR_API_KEY");
  env.no_color = !variable("NO_COLOR").empty();
  return env;
}

}  // namespace spear
