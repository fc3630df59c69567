// A model from a hub into the cache: list, choose, download what is missing, check, publish.
#pragma once

#include "spear/base/progress.h"
#include "spear/hub/hub_client.h"
#include "spear/hub/model_cache.h"

namespace spear {

// `name` is what the user typed and the model is kept under. Returns the pulled model; when the
// cache already holds the hub's current commit and `force` is false, nothing is downloaded. The
// caller holds the lock. Throws Failure.
PulledModel pull_from_hub(const std::string& name, const HubModelId& id, const HubOptions& options,
                          const ModelCache& cache, bool force, Progress& progress);

}  // namespace spear
