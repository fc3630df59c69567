// What `spear inspect` says about a model, as JSON and as text for people.
#pragma once

#include <filesystem>
#include <string>

#include "spear/base/json.h"
#include "spear/model/checkpoint.h"
#include "spear/model/model_file.h"

namespace spear {

// A .spear artifact: configuration, bytes by part, precisions, compensators, sections, how it was
// made, its certificate. Throws Failure(kBadFile) when provenance or certificate are not JSON.
Json describe_artifact(const ModelFile& file, const std::filesystem::path& path);
// A model in full precision or another program's format.
Json describe_checkpoint(const Checkpoint& checkpoint);

std::string inspect_text(const Json& description);

}  // namespace spear
