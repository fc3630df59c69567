// GGUF files of the llama.cpp project as checkpoints: metadata to ModelConfig, names and row orders
// to ours.
#pragma once

#include <filesystem>

#include "spear/model/checkpoint.h"

namespace spear {

Result<CheckpointParts> import_gguf(const std::filesystem::path& path);

// The configuration that a GGUF file's metadata and tensors describe.
Result<ModelConfig> config_from_gguf(const GgufFile& file);

}  // namespace spear
