// Hugging Face folders as checkpoints: config.json to ModelConfig, generation_config.json, the chat
// template, safetensors names to ours.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "spear/model/checkpoint.h"

namespace spear {

// `single` names one .safetensors file of the folder to use instead of model.safetensors or the
// index.
Result<CheckpointParts> import_hf(const std::filesystem::path& folder,
                                  const std::optional<std::string>& single);

// The pure part of reading config.json: hostile text in, a validated configuration or a sentence
// out. `generation_text` is generation_config.json, empty when there is none.
Result<ModelConfig> config_from_hf_text(std::string_view text, std::string_view generation_text,
                                        std::string_view source);

}  // namespace spear
