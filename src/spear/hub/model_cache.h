// The pulled models on this machine: <cache>/models/<key>/ holds the files of one model and
// spear-model.json, which says what they are. A model appears there whole or not at all (built in a
// staging folder, renamed at the end). Any thread; two processes exclude each other per model by
// CacheLock.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"

namespace spear {

struct PulledFile {
  std::string name;  // relative to the model's folder
  int64_t bytes = 0;
  std::string sha256;  // 64 digits, of what was downloaded
};

struct PulledModel {
  std::string name;      // what the user types: "smollm2-135m", "org/name", "org/name:file.gguf"
  std::string source;    // where it came from, for people
  std::string revision;  // the commit or package version
  std::string licence;   // as the source states it; empty when it does not
  std::string entry;     // the file that is the model, or "." for a folder of safetensors
  std::vector<PulledFile> files;
  std::filesystem::path folder;  // not stored: where it was found

  [[nodiscard]] int64_t bytes() const;
  [[nodiscard]] std::filesystem::path path() const;  // what the importers open
};

class ModelCache {
 public:
  explicit ModelCache(std::filesystem::path cache_dir);

  // By name. A folder whose description cannot be read is skipped and named in a warning.
  [[nodiscard]] std::vector<PulledModel> list() const;
  // kNotFound when there is none of that name; kBadFile when one of its files is gone or has
  // another size.
  [[nodiscard]] Result<PulledModel> find(std::string_view name) const;
  // Where a model of that name is built; kept after an interruption, so that the next pull resumes.
  [[nodiscard]] std::filesystem::path staging_folder(std::string_view name) const;
  [[nodiscard]] std::filesystem::path lock_file(std::string_view name) const;
  // Writes spear-model.json into the staging folder and moves it into place, over an older one.
  PulledModel publish(PulledModel model) const;
  // kNotFound when there is none. Removes what an interrupted pull left as well.
  Result<void> remove(std::string_view name) const;

 private:
  [[nodiscard]] std::filesystem::path folder_of(std::string_view name) const;

  std::filesystem::path root_;  // <cache>/models
};

// Held while a model is pulled or removed; released by the destructor, and by the system should we
// be killed.
class CacheLock {
 public:
  // kIo naming the process that holds it.
  static Result<CacheLock> take(const std::filesystem::path& file);
  CacheLock(CacheLock&& other) noexcept;
  CacheLock& operator=(CacheLock&&) = delete;
  ~CacheLock();

 private:
  explicit CacheLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace spear
