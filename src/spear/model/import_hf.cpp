#include "spear/model/import_hf.h"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr size_t kMaxTokenizerConfigBytes = size_t{8} << 20;
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

// The text of a file of the folder; empty when it is not there.
Result<std::string> optional_text(const fs::path& folder, std::string_view name, size_t limit) {
  const auto path = file_in_folder(folder, name);
  if (!path) {
    if (path.error().code == ErrorCode::kNotFound) return std::string();
    return tl::unexpected(path.error());
  }
  return read_text_file(*path, limit);
}

// "model.layers.3..." to "layers.3..."; "lm_head.weight" stays.
std::string our_name(std::string_view stored) {
  constexpr std::string_view kPrefix = "model.";
  return std::string(stored.starts_with(kPrefix) ? stored.substr(kPrefix.size()) : stored);
}

// Left-overs that older exports carry and that the configuration already says.
bool is_ignored(const ModelConfig& config, std::string_view name) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  return name == "lm_head.weight" && config.tie_word_embeddings;
}

void add_tensors(CheckpointParts& parts) {
  for (const auto& shard : parts.shards) {
    for (const SafetensorsTensor& tensor : shard->tensors()) {
      StoredTensor stored;
      stored.name = our_name(tensor.name);
      if (is_ignored(parts.config, stored.name)) continue;
      stored.shape = tensor.shape;
      stored.type = tensor.type;
      stored.bytes = tensor.bytes;
      stored.file = &shard->file();
      parts.tensors.push_back(std::move(stored));
    }
    parts.files.push_back(shard->file().path());
  }
}

Result<std::string> template_from(const std::string& text) {
  const auto json = parse_json(text, "tokenizer_config.json");
  if (!json) return tl::unexpected(json.error());
  const auto at = json->is_object() ? json->find("chat_template") : json->end();
  if (!json->is_object() || at == json->end() || at->is_null()) return std::string();
  if (at->is_string()) return at->get<std::string>();
  // A list of named templates: the default one speaks.
  if (at->is_array())
    for (const Json& entry : *at)
      if (entry.is_object() && entry.value("name", Json()) == Json("default") &&
          entry.contains("template") && entry.at("template").is_string())
        return entry.at("template").get<std::string>();
  return fail(ErrorCode::kBadFile,
              "tokenizer_config.json: \"chat_template\": a string, or a list with one named "
              "\"default\", expected");
}

Result<std::string> read_chat_template(const fs::path& folder) {
  auto file = optional_text(folder, "chat_template.jinja", kMaxTemplateBytes);
  if (!file || !file->empty()) return file;
  const auto text = optional_text(folder, "tokenizer_config.json", kMaxTokenizerConfigBytes);
  if (!text || text->empty()) return text;
  return template_from(*text);
}

Result<std::string> read_license(const fs::path& folder) {
  constexpr std::array<std::string_view, 4> kNames = {"LICENSE", "LICENSE.txt", "LICENSE.md",
                                                      "LICENSE.rst"};
  for (const std::string_view name : kNames) {
    auto text = optional_text(folder, name, kMaxTemplateBytes);
    if (!text || !text->empty()) return text;
  }
  return std::string();
}

Result<ModelConfig> read_config(const fs::path& folder) {
  const auto path = file_in_folder(folder, "config.json");
  if (!path) return tl::unexpected(path.error());
  const auto text = read_text_file(*path, kMaxConfigBytes);
  if (!text) return tl::unexpected(text.error());
  const auto generation = optional_text(folder, "generation_config.json", kMaxConfigBytes);
  if (!generation) return tl::unexpected(generation.error());
  return config_from_hf_text(*text, *generation, path->string());
}

Result<std::vector<std::unique_ptr<SafetensorsFile>>> open_weights(
    const fs::path& folder, const std::optional<std::string>& single) {
  if (single) {
    auto file = SafetensorsFile::open(folder / *single);
    if (!file) return tl::unexpected(file.error());
    std::vector<std::unique_ptr<SafetensorsFile>> out;
    out.push_back(std::make_unique<SafetensorsFile>(std::move(*file)));
    return out;
  }
  auto files = open_safetensors_folder(folder);
  if (files || files.error().code != ErrorCode::kNotFound) return files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (const auto extension = entry.path().extension(); extension == ".bin" || extension == ".pt")
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: a pickle can run code when it is read; convert the model to "
                              "safetensors",
                              entry.path().string()));
  return files;
}

}  // namespace

Result<CheckpointParts> import_hf(const fs::path& folder,
                                  const std::optional<std::string>& single) {
  CheckpointParts parts;
  parts.folder = folder;
  auto config = read_config(folder);
  if (!config) return tl::unexpected(config.error());
  parts.config = std::move(*config);
  auto shards = open_weights(folder, single);
  if (!shards) return tl::unexpected(shards.error());
  parts.shards = std::move(*shards);
  add_tensors(parts);
  auto chat = read_chat_template(folder);
  if (!chat) return tl::unexpected(chat.error());
  parts.chat_template = std::move(*chat);
  auto license = read_license(folder);
  if (!license) return tl::unexpected(license.error());
  parts.license = std::move(*license);
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                           "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"})
    if (auto path = file_in_folder(folder, name)) parts.files.push_back(*path);
  return parts;
}

}  // namespace spear
