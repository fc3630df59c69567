// A compressed model as a .spear file: what stands in which section and tensor
// (docs/artifact-format.md). Loading maps the file: weights stay where they are and are paged in as
// they are read. Everything is checked against the configuration before it is used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "spear/base/error.h"
#include "spear/formats/artifact.h"
#include "spear/model/quantized_model.h"

namespace spear {

// The sections of text. Empty ones are not stored.
struct ModelTexts {
  std::string tokenizer;      // Tokenizer::serialize()
  std::string chat_template;  // Jinja
  std::string license;
  std::string provenance;   // JSON: command, seeds, hashes of what went in, phases
  std::string certificate;  // JSON: measured quality, as `spear eval --json` writes it
  std::string diagnosis;    // JSON of `spear diagnose`
};

struct ModelFile {
  QuantizedModel model;
  ModelTexts texts;
  std::shared_ptr<const Artifact> artifact;  // keeps the mapping that `model` points into
};

// Writes atomically; throws Failure(kIo) and leaves an older file whole.
void save_model(const std::filesystem::path& path, const QuantizedModel& model,
                const ModelTexts& texts);

// kEveryByte compares every section with its checksum first: one pass at the speed of memory (10 ms
// for 80 MB), over bytes that running the model reads anyway. kStructure is for looking at a file.
enum class FileChecks : uint8_t { kEveryByte, kStructure };

// kBadFile names the section or tensor, what was found and what was expected; kUnsupported: a newer
// version.
Result<ModelFile> load_model(const std::filesystem::path& path,
                             FileChecks checks = FileChecks::kEveryByte);

}  // namespace spear
