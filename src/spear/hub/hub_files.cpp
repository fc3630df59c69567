#include "spear/hub/hub_files.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "spear/base/json.h"

namespace spear {
namespace {

constexpr size_t kMostFiles = 20000;

bool hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string text_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

int64_t bytes_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return -1;
  const auto bytes = found->get<int64_t>();
  return bytes >= 0 && bytes <= (int64_t{1} << 50) ? bytes : -1;
}

HubFile parse_file(const Json& entry) {
  HubFile file{.name = text_at(entry, "rfilename"),
               .bytes = bytes_at(entry, "size"),
               .sha256 = {},
               .git_sha1 = text_at(entry, "blobId")};
  if (!hex(file.git_sha1, 40)) file.git_sha1.clear();
  const auto large = entry.find("lfs");
  if (large != entry.end() && large->is_object()) {
    file.git_sha1.clear();  // names the pointer, not the content
    file.sha256 = text_at(*large, "sha256");
    if (!hex(file.sha256, 64)) file.sha256.clear();
    if (const int64_t bytes = bytes_at(*large, "size"); bytes >= 0) file.bytes = bytes;
  }
  return file;
}

std::string parse_licence(const Json& json) {
  if (const auto card = json.find("cardData"); card != json.end() && card->is_object())
    if (std::string licence = text_at(*card, "license"); !licence.empty()) return licence;
  if (const auto tags = json.find("tags"); tags != json.end() && tags->is_array())
    for (const Json& tag : *tags)
      if (tag.is_string() && tag.get<std::string>().starts_with("license:"))
        return tag.get<std::string>().substr(8);
  return {};
}

bool is_description(std::string_view name) {
  constexpr std::array<std::string_view, 8> kNames = {"config.json",
                                                      "generation_config.json",
                                                      "special_tokens_map.json",
                                                      "added_tokens.json",
                                                      "chat_template.jinja",
                                                      "LICENSE",
                                                      "LICENSE.txt",
                                                      "LICENSE.md"};
  if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) return true;
  return name.starts_with("tokenizer") && (name.ends_with(".json") || name.ends_with(".model"));
}

// "model-00001-of-00003.safetensors" for the stem "model".
bool is_shard(std::string_view name, std::string_view stem) {
  constexpr std::string_view kPattern = "-00000-of-00000.safetensors";
  if (!name.starts_with(stem) || name.size() != stem.size() + kPattern.size()) return false;
  const std::string_view tail = name.substr(stem.size());
  for (size_t i = 0; i < tail.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (kPattern[i] == '0' ? !digit : tail[i] != kPattern[i]) return false;
  }
  return true;
}

const HubFile* find_file(const HubListing& listing, std::string_view name) {
  for (const HubFile& file : listing.files)
    if (file.name == name) return &file;
  return nullptr;
}

std::string names_ending_in(const HubListing& listing, std::string_view end) {
  std::string names;
  int count = 0;
  for (const HubFile& file : listing.files) {
    if (!file.name.ends_with(end)) continue;
    if (++count <= 20) names += (names.empty() ? "" : ", ") + file.name;
  }
  if (count > 20) names += fmt::format(" and {} more", count - 20);
  return names;
}

Result<std::vector<HubFile>> one_named_file(const HubListing& listing, const HubModelId& id) {
  if (!id.file.ends_with(".gguf") && !id.file.ends_with(".spear"))
    return fail(ErrorCode::kUsage, fmt::format("{}:{}: a single file must be a .gguf or a .spear",
                                               id.repository, id.file));
  if (id.file.find("-of-0") != std::string::npos)
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("{}: GGUF files that are split into parts are not read; choose one of: {}",
                    id.file, names_ending_in(listing, ".gguf")));
  const HubFile* file = find_file(listing, id.file);
  if (file == nullptr) {
    const std::string names = names_ending_in(listing, ".gguf");
    return fail(ErrorCode::kNotFound,
                fmt::format("{} has no file {}; it has: {}", id.repository, id.file,
                            names.empty() ? "no GGUF file at all" : names));
  }
  return std::vector<HubFile>{*file};
}

std::vector<HubFile> weight_files(const HubListing& listing) {
  std::vector<HubFile> weights;
  for (const HubFile& file : listing.files) {
    constexpr std::string_view kIndex = ".safetensors.index.json";
    if (file.name.find('/') != std::string::npos || !file.name.ends_with(kIndex)) continue;
    const std::string_view stem(file.name.data(), file.name.size() - kIndex.size());
    for (const HubFile& shard : listing.files)
      if (is_shard(shard.name, stem)) weights.push_back(shard);
    if (!weights.empty()) {
      weights.push_back(file);
      return weights;
    }
  }
  if (const HubFile* single = find_file(listing, "model.safetensors")) return {*single};
  for (const HubFile& file : listing.files)
    if (file.name.find('/') == std::string::npos && file.name.ends_with(".safetensors"))
      weights.push_back(file);
  return weights;
}

}  // namespace

Result<HubListing> parse_hub_listing(std::string_view text, const std::string& source) {
  const Result<Json> json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  if (!json->is_object() || !json->contains("siblings") || !json->at("siblings").is_array())
    return fail(
        ErrorCode::kBadFile,
        fmt::format("{}: \"siblings\", the list of files, expected and not found: is HF_ENDPOINT a "
                    "model hub?",
                    source));
  HubListing listing;
  listing.commit = text_at(*json, "sha");
  if (!hex(listing.commit, 40))
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: \"sha\": a commit of 40 digits expected, found \"{}\"", source,
                            listing.commit.substr(0, 80)));
  listing.licence = parse_licence(*json);
  for (const Json& entry : json->at("siblings")) {
    if (!entry.is_object() || listing.files.size() >= kMostFiles) continue;
    HubFile file = parse_file(entry);
    if (safe_relative_path(file.name)) listing.files.push_back(std::move(file));
  }
  return listing;
}

Result<std::vector<HubFile>> needed_files(const HubListing& listing, const HubModelId& id) {
  if (!id.file.empty()) return one_named_file(listing, id);
  const std::vector<HubFile> weights = weight_files(listing);
  if (weights.empty()) {
    const std::string ggufs = names_ending_in(listing, ".gguf");
    const char* other = names_ending_in(listing, ".bin").empty() ? "" : ", only PyTorch .bin files";
    return fail(
        ErrorCode::kNotFound,
        ggufs.empty()
            ? fmt::format("{} has no safetensors weights{}; spear reads safetensors and GGUF",
                          id.repository, other)
            : fmt::format(
                  "{} has no safetensors weights but GGUF files; name one, as in `spear pull "
                  "{}:{}`; there are: {}",
                  id.repository, id.repository, ggufs.substr(0, ggufs.find(',')), ggufs));
  }
  std::vector<HubFile> needed;
  for (const HubFile& file : listing.files)
    if (is_description(file.name) && file.bytes != 0) needed.push_back(file);
  if (find_file(listing, "config.json") == nullptr)
    return fail(
        ErrorCode::kNotFound,
        fmt::format("{} has weights but no config.json: it is not a whole model", id.repository));
  needed.insert(needed.end(), weights.begin(), weights.end());
  return needed;
}

}  // namespace spear
