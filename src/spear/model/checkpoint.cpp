#include "spear/model/checkpoint.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/model/import_gguf.h"
#include "spear/model/import_hf.h"
#include "spear/model/import_names.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

bool is_pickle(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt";
}

tl::unexpected<Error> refuse_pickle(const fs::path& path) {
  return fail(
      ErrorCode::kUnsupported,
      fmt::format("{}: a pickle can run code when it is read; convert the model to safetensors "
                  "or GGUF",
                  path.string()));
}

// A folder without config.json may hold one GGUF file.
Result<CheckpointParts> import_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "config.json", error)) return import_hf(folder, std::nullopt);
  std::vector<fs::path> gguf;
  std::optional<fs::path> pickle;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".gguf") gguf.push_back(entry.path());
    if (is_pickle(entry.path())) pickle = entry.path();
  }
  if (error)
    return fail(ErrorCode::kIo,
                fmt::format("{}: cannot list: {}", folder.string(), error.message()));
  if (gguf.size() == 1) return import_gguf(gguf[0]);
  if (gguf.size() > 1)
    return fail(ErrorCode::kUsage, fmt::format("{}: holds {} GGUF files; name the one you mean",
                                               folder.string(), gguf.size()));
  if (pickle) return refuse_pickle(*pickle);
  return fail(ErrorCode::kNotFound,
              fmt::format("{}: no model here: neither config.json with safetensors nor a GGUF file",
                          folder.string()));
}

Result<CheckpointParts> import_any(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error))
    return fail(ErrorCode::kNotFound, fmt::format("{}: no such file or folder", path.string()));
  if (fs::is_directory(path, error)) return import_folder(path);
  if (is_pickle(path)) return refuse_pickle(path);
  if (path.extension() == ".safetensors") {
    const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
    return import_hf(folder, path.filename().string());
  }
  if (path.extension() == ".spear")
    return fail(ErrorCode::kUnsupported,
                fmt::format("{}: a quantized model of spear; a full-precision one is needed here",
                            path.string()));
  return import_gguf(path);
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const fs::path& path) {
  auto parts = import_any(path);
  if (!parts) return tl::unexpected(parts.error());
  Checkpoint out;
  out.path_ = path;
  out.parts_ = std::move(*parts);
  auto& tensors = out.parts_.tensors;
  std::sort(tensors.begin(), tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  if (auto ok = check_tensors(out.config(), tensors, path.string()); !ok)
    return tl::unexpected(ok.error());
  return out;
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto at = std::lower_bound(
      parts_.tensors.begin(), parts_.tensors.end(), name,
      [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at == parts_.tensors.end() || at->name != name ? nullptr : &*at;
}

Result<std::string> Checkpoint::content_hash() const {
  if (parts_.files.size() == 1) return sha256_of_file(parts_.files[0]);
  std::string list;
  for (const fs::path& file : parts_.files) {
    const auto digest = sha256_of_file(file);
    if (!digest) return tl::unexpected(digest.error());
    list += fmt::format("{}  {}\n", *digest, file.filename().string());
  }
  return sha256_hex(std::as_bytes(std::span(list)));
}

}  // namespace spear
