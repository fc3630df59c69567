// The name of a model on a hub as the user types it: org/name[@revision][:file].
#pragma once

#include <string>
#include <string_view>

#include "spear/base/error.h"

namespace spear {

struct HubModelId {
  std::string repository;         // "org/name"
  std::string revision = "main";  // a branch, tag or commit
  std::string file;               // "x.gguf", or empty: the safetensors of the repository
};

// kUsage with a sentence on the first thing that is wrong.
Result<HubModelId> parse_hub_model_id(std::string_view text);
// A relative path without "..", empty or hidden segments, backslashes and control characters, at
// most 255 bytes: what a listing may make us write.
bool safe_relative_path(std::string_view path);

}  // namespace spear
