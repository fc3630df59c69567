#include "spear/hub/model_cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/log.h"

namespace spear {
namespace fs = std::filesystem;
namespace {

constexpr const char* kDescription = "spear-model.json";
constexpr size_t kDescriptionLimit = size_t{4} << 20;

// One folder per name: "org/name:file.gguf" -> "org--name--file.gguf".
std::string key_of(std::string_view name) {
  std::string key;
  for (const char c : name) {
    const bool separator =
        c == '/' || c == ':' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
    if (separator)
      key += "--";
    else
      key += c;
  }
  return key;
}

std::string text_of(const PulledModel& model) {
  Json files = Json::array();
  for (const PulledFile& f : model.files)
    files.push_back({{"name", f.name}, {"bytes", f.bytes}, {"sha256", f.sha256}});
  const Json json = {{"name", model.name},         {"source", model.source},
                     {"revision", model.revision}, {"licence", model.licence},
                     {"entry", model.entry},       {"files", files}};
  return json.dump(2) + "\n";
}

// A name inside the model's folder: never a way out of it.
bool stays_inside(const std::string& name) {
  const fs::path path = name;
  return !name.empty() && path.is_relative() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& p) { return p == ".."; });
}

Result<PulledModel> read_description(const fs::path& folder) {
  const fs::path file = folder / kDescription;
  const Result<std::string> text = read_text_file(file, kDescriptionLimit);
  if (!text) return tl::unexpected(text.error());
  const Result<Json> json = parse_json(*text, file.string());
  if (!json) return tl::unexpected(json.error());
  try {
    PulledModel model{.name = json->at("name"),
                      .source = json->at("source"),
                      .revision = json->at("revision"),
                      .licence = json->at("licence"),
                      .entry = json->at("entry"),
                      .files = {},
                      .folder = folder};
    for (const Json& f : json->at("files"))
      model.files.push_back({f.at("name"), f.at("bytes"), f.at("sha256")});
    if (!stays_inside(model.entry))
      return fail(ErrorCode::kBadFile, fmt::format("{}: entry \"{}\" leaves the model's folder",
                                                   file.string(), model.entry));
    return model;
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kBadFile, fmt::format("{}: not a description of a pulled model: {}",
                                                 file.string(), e.what()));
  }
}

// The files are as the description says, by size; their bytes are checked by whoever reads them.
Result<void> check_files(const PulledModel& model) {
  for (const PulledFile& f : model.files) {
    std::error_code error;
    const uintmax_t size = fs::file_size(model.folder / f.name, error);
    if (error || size != static_cast<uintmax_t>(f.bytes))
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: {} bytes expected, found {}; run `spear pull --force {}`",
                              (model.folder / f.name).string(), f.bytes,
                              error ? "no such file" : std::to_string(size), model.name));
  }
  return {};
}

void sync_folder(const fs::path& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

}  // namespace

int64_t PulledModel::bytes() const {
  int64_t sum = 0;
  for (const PulledFile& f : files) sum += f.bytes;
  return sum;
}

fs::path PulledModel::path() const {
  return entry == "." ? folder : folder / entry;
}

ModelCache::ModelCache(fs::path cache_dir) : root_(std::move(cache_dir) / "models") {}

fs::path ModelCache::folder_of(std::string_view name) const {
  return root_ / key_of(name);
}

fs::path ModelCache::staging_folder(std::string_view name) const {
  return root_ / (".staging-" + key_of(name));
}

fs::path ModelCache::lock_file(std::string_view name) const {
  return root_ / (".lock-" + key_of(name));
}

std::vector<PulledModel> ModelCache::list() const {
  std::vector<PulledModel> models;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(root_, error)) {
    if (entry.path().filename().string().starts_with('.') || !entry.is_directory(error)) continue;
    Result<PulledModel> model = read_description(entry.path());
    if (model)
      models.push_back(std::move(*model));
    else
      log(LogLevel::kWarning, model.error().message);
  }
  std::sort(models.begin(), models.end(),
            [](const PulledModel& a, const PulledModel& b) { return a.name < b.name; });
  return models;
}

Result<PulledModel> ModelCache::find(std::string_view name) const {
  const fs::path folder = folder_of(name);
  std::error_code error;
  if (name.empty() || name.starts_with('.') || !fs::is_directory(folder, error))
    return fail(ErrorCode::kNotFound, fmt::format("{}: no model of that name was pulled", name));
  Result<PulledModel> model = read_description(folder);
  if (!model) return model;
  if (model->name != name)
    return fail(ErrorCode::kNotFound, fmt::format("{}: no model of that name was pulled", name));
  if (const Result<void> files = check_files(*model); !files) return tl::unexpected(files.error());
  return model;
}

PulledModel ModelCache::publish(PulledModel model) const {
  const fs::path staging = staging_folder(model.name);
  const fs::path target = folder_of(model.name);
  write_file_atomically(staging / kDescription, text_of(model));
  // Exchanged in one step: a reader, or a kill, finds the older model whole or the newer one.
  const bool replaces = fs::exists(target);
  if (renameat2(AT_FDCWD, staging.c_str(), AT_FDCWD, target.c_str(),
                replaces ? RENAME_EXCHANGE : 0u) != 0)
    throw Failure(ErrorCode::kIo, fmt::format("{}: cannot move the model into place: {}",
                                              target.string(), std::strerror(errno)));
  if (replaces) {
    std::error_code ignored;  // the older files are only in the way of disk space
    fs::remove_all(staging, ignored);
  }
  sync_folder(root_);
  model.folder = target;
  return model;
}

Result<void> ModelCache::remove(std::string_view name) const {
  std::error_code error;
  const fs::path folder = folder_of(name);
  const bool here = !name.empty() && !name.starts_with('.') && fs::is_directory(folder, error);
  const bool partial = !name.empty() && fs::is_directory(staging_folder(name), error);
  if (!here && !partial)
    return fail(ErrorCode::kNotFound, fmt::format("{}: no model of that name was pulled", name));
  // Renamed first: a reader sees the whole model or none.
  const fs::path old = root_ / (".old-" + key_of(name));
  if (here) fs::rename(folder, old, error);
  if (!error) fs::remove_all(old, error);
  if (!error) fs::remove_all(staging_folder(name), error);
  if (error)
    return fail(ErrorCode::kIo,
                fmt::format("{}: cannot be removed: {}", folder.string(), error.message()));
  return {};
}

Result<CacheLock> CacheLock::take(const fs::path& file) {
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0)
    return fail(ErrorCode::kIo,
                fmt::format("{}: cannot be opened: {}", file.string(), std::strerror(errno)));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    close(fd);
    return fail(ErrorCode::kIo,
                fmt::format("{}: another spear (process {}) is at work on this model; wait for it, "
                            "or stop it",
                            file.string(), n > 0 ? std::string(holder) : "unknown"));
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0)
    log(LogLevel::kDebug, fmt::format("{}: holder not recorded", file.string()));
  return CacheLock(fd);
}

CacheLock::CacheLock(CacheLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

CacheLock::~CacheLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace spear
