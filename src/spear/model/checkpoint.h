// A model as others publish it, opened and checked: a GGUF file, a Hugging Face folder (config.json
// and safetensors), or one .safetensors file beside its config.json. Every tensor the decoder needs
// is there under our name with the shape the configuration says; nothing is left over. Immutable
// once opened: read from any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/formats/gguf.h"
#include "spear/formats/safetensors.h"
#include "spear/model/config.h"
#include "spear/model/dense_model.h"

namespace spear {

// One tensor of a weight file. Both formats speak of types by GGUF's names; safetensors has three
// of them.
struct StoredTensor {
  std::string name;  // ours: "layers.3.mlp.down_proj.weight"
  Shape shape;       // [n, k] or [n]
  GgmlType type = GgmlType::kF32;
  std::span<const std::byte> bytes;  // rows of row_bytes(type, k)
  const MappedFile* file = nullptr;
  // Rows of each of that many heads stand in the order of interleaved RoPE (llama.cpp's for llama);
  // 0: as ours.
  int64_t interleaved_heads = 0;
};

// What an importer delivers; checked as a whole by Checkpoint::open.
struct CheckpointParts {
  ModelConfig config;
  std::string chat_template;  // empty: none
  std::string license;        // a text, or the short name that the file gives; empty: none
  std::vector<StoredTensor> tensors;
  std::unique_ptr<GgufFile> gguf;                        // the GGUF file
  std::vector<std::unique_ptr<SafetensorsFile>> shards;  // or the safetensors files
  std::filesystem::path folder;                          // of a Hugging Face model; empty for GGUF
  std::vector<std::filesystem::path> files;              // everything that was read, for the hash
};

class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::filesystem::path& path);

  [[nodiscard]] const ModelConfig& config() const { return parts_.config; }
  [[nodiscard]] const std::string& chat_template() const { return parts_.chat_template; }
  [[nodiscard]] const std::string& license() const { return parts_.license; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Where the tokenizer is: the metadata of a GGUF file, or files in a folder. One of the two is
  // null or empty.
  [[nodiscard]] const GgufFile* gguf() const { return parts_.gguf.get(); }
  [[nodiscard]] const std::filesystem::path& folder() const { return parts_.folder; }

  [[nodiscard]] const StoredTensor* find(std::string_view name) const;
  // SHA-256 of everything that was read. Not remembered between runs: it names caches and stands in
  // artifacts, and a size and a time do not prove what bytes are; a gigabyte takes about a second.
  [[nodiscard]] Result<std::string> content_hash() const;

 private:
  CheckpointParts parts_;  // tensors sorted by name
  std::filesystem::path path_;
};

// The whole model in host memory, matrices as `dtype` (kBF16 or kF32), norms and biases in F32.
// Throws Failure when a file changes under us, holds values that are not finite, or the user stops
// it.
DenseModel load_dense(const Checkpoint& checkpoint, DType dtype, ThreadPool& pool,
                      Progress& progress);

}  // namespace spear
