// A model of any kind, opened for use: a .spear artifact or a checkpoint of another program, with
// its tokenizer. Plain owner; immutable once opened.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "spear/base/env.h"
#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/model/decoder.h"
#include "spear/model/dense_model.h"
#include "spear/model/model_file.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

// By its first bytes, whatever the file is called.
bool is_artifact(const std::filesystem::path& path);

struct OpenedModel {
  std::filesystem::path path;
  std::unique_ptr<DenseModel> dense;  // one of the two is there
  std::unique_ptr<ModelFile> file;
  std::optional<Tokenizer> tokenizer;
  std::string chat_template;  // empty: none
  std::string license;

  [[nodiscard]] const ModelConfig& config() const {
    return dense != nullptr ? dense->config : file->model.config;
  }
  // With a compiled step the packed copy is what is read from then on: the mapped file's pages are
  // given back.
  [[nodiscard]] Decoder decoder(Backend& backend, Compute compute,
                                DecoderPath path_taken = DecoderPath::kPlain) const {
    if (dense != nullptr) return Decoder(backend, *dense, compute);
    Decoder made(backend, file->model, compute, path_taken);
    if (made.program() != nullptr) file->artifact->file().release(file->artifact->file().bytes());
    return made;
  }
};

// `name` as resolve_model takes it. Matrices of a checkpoint are read as `dtype`. Throws Failure.
OpenedModel open_model(const std::string& name, const Environment& env, DType dtype,
                       ThreadPool& pool, Progress& progress);
// The same, but a .spear artifact is refused: `purpose` says what a full-precision model is for.
OpenedModel open_reference(const std::string& name, const Environment& env, DType dtype,
                           ThreadPool& pool, Progress& progress, const char* purpose);

}  // namespace spear
