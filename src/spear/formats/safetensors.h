// safetensors files: a JSON header and tensors over a mapped file, single or in shards behind an
// index. Everything has been checked before it is believed: lengths, types, shapes against bytes,
// no hole, overlap or stray byte, no shard outside the model's folder. Immutable once opened: read
// from any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/mapped_file.h"
#include "spear/base/tensor_view.h"
#include "spear/formats/ggml_types.h"

namespace spear {

struct SafetensorsTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;  // kF32, kF16 or kBF16
  Shape shape;
  std::span<const std::byte> bytes;
};

// The pure part: parses bytes that outlive the result. `source` is named in errors.
Result<std::vector<SafetensorsTensor>> parse_safetensors(std::span<const std::byte> bytes,
                                                         std::string_view source);

// The shard of each tensor as an index file says: names of files in its own folder, nothing else.
struct SafetensorsIndexEntry {
  std::string tensor;
  std::string shard;
};
Result<std::vector<SafetensorsIndexEntry>> parse_safetensors_index(std::string_view text,
                                                                   std::string_view source);

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  [[nodiscard]] std::span<const SafetensorsTensor> tensors() const { return tensors_; }
  [[nodiscard]] const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  std::vector<SafetensorsTensor> tensors_;  // in the order of their bytes
};

// All files of a model folder: model.safetensors, or the shards of model.safetensors.index.json,
// which hold exactly the tensors that the index gives them. kNotFound when there is neither.
Result<std::vector<std::unique_ptr<SafetensorsFile>>> open_safetensors_folder(
    const std::filesystem::path& folder);

// The path of a file in a model's folder. A link is followed inside the folder, and from a hub
// cache's snapshot to the blobs beside it; one that leads elsewhere is refused. kNotFound when
// there is no such file.
Result<std::filesystem::path> file_in_folder(const std::filesystem::path& folder,
                                             std::string_view name);

}  // namespace spear
