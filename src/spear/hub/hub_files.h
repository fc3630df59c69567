// What a hub says about the files of a repository, and which of them a model needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/hub/hub_model_id.h"

namespace spear {

struct HubFile {
  std::string name;      // checked: safe_relative_path
  int64_t bytes = -1;    // -1: the hub does not say
  std::string sha256;    // of large files; else empty
  std::string git_sha1;  // of small files: the name git gives their content
};

struct HubListing {
  std::string commit;   // what the revision stands for
  std::string licence;  // "apache-2.0"; empty when not stated
  std::vector<HubFile> files;
};

// The answer of /api/models/{id}/revision/{revision}?blobs=true, which is hostile until parsed.
Result<HubListing> parse_hub_listing(std::string_view text, const std::string& source);

// The named GGUF or .spear file; else configuration, tokenizer and the safetensors weights, each
// once. kNotFound with what there is instead.
Result<std::vector<HubFile>> needed_files(const HubListing& listing, const HubModelId& id);

}  // namespace spear
