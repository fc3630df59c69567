#include "spear/hub/hub_pull.h"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/hub/byte_progress.h"
#include "spear/hub/disk_space.h"

namespace spear {
namespace fs = std::filesystem;
namespace {

// The folder in which the model is put together, emptied when it holds parts of another commit.
fs::path prepare_staging(const ModelCache& cache, const std::string& name,
                         const std::string& commit) {
  fs::path staging = cache.staging_folder(name);
  const fs::path mark = staging / "commit";
  const Result<std::string> earlier = read_text_file(mark, 100);
  if (!earlier || *earlier != commit) {
    fs::remove_all(staging);
    fs::create_directories(staging);
    write_file_atomically(mark, commit);
  }
  return staging;
}

// A single file keeps its base name, the files of a repository their own (all at its top).
std::string local_name(const HubFile& file) {
  return fs::path(file.name).filename().string();
}

int64_t bytes_here(const fs::path& file) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(file, error);
  return error ? 0 : static_cast<int64_t>(bytes);
}

class RepositoryDownload {
 public:
  RepositoryDownload(HubClient& client, const HubModelId& id, const HubListing& listing,
                     std::vector<HubFile> files, fs::path staging)
      : client_(client),
        id_(id),
        listing_(listing),
        files_(std::move(files)),
        staging_(std::move(staging)) {}

  std::vector<PulledFile> run(Progress& progress) {
    int64_t total = 0;
    int64_t here = 0;
    for (const HubFile& file : files_) {
      total += std::max<int64_t>(file.bytes, 0);
      const fs::path target = staging_ / local_name(file);
      here += bytes_here(target) + bytes_here(target.string() + ".part");
    }
    expect_disk_space(staging_, total - here, id_.repository);
    ByteProgress bytes(progress, "download " + id_.repository, total);
    std::vector<PulledFile> pulled;
    for (const HubFile& file : files_) pulled.push_back(obtain(file, bytes));
    fs::remove(staging_ / "commit");
    return pulled;
  }

 private:
  // Complete files carry their digest in a note beside them, so that a resumed pull need not trust
  // a size.
  PulledFile obtain(const HubFile& file, ByteProgress& bytes) {
    const fs::path target = staging_ / local_name(file);
    const int64_t before = bytes.done();
    const std::string sha256 =
        client_.download(id_, listing_.commit, file, target,
                         [&](int64_t here) { bytes.set(before + here, local_name(file)); });
    const int64_t size = bytes_here(target);
    bytes.set(before + size, local_name(file));
    return {local_name(file), size, sha256};
  }

  HubClient& client_;
  const HubModelId& id_;
  const HubListing& listing_;
  std::vector<HubFile> files_;
  fs::path staging_;
};

PulledModel pull(const std::string& name, const HubModelId& id, const HubOptions& options,
                 const ModelCache& cache, bool force, Progress& progress) {
  HubClient client(options, [&progress] { return !progress.stop_requested(); });
  const HubListing listing = client.list(id);
  if (!force)
    if (Result<PulledModel> here = cache.find(name); here && here->revision == listing.commit)
      return std::move(*here);
  std::vector<HubFile> files = value_or_throw(needed_files(listing, id));
  const std::string entry = id.file.empty() ? "." : local_name(files[0]);
  RepositoryDownload download(client, id, listing, std::move(files),
                              prepare_staging(cache, name, listing.commit));
  return cache.publish({.name = name,
                        .source = fmt::format("{}/{}", options.endpoint, id.repository),
                        .revision = listing.commit,
                        .licence = listing.licence,
                        .entry = entry,
                        .files = download.run(progress),
                        .folder = {}});
}

}  // namespace

PulledModel pull_from_hub(const std::string& name, const HubModelId& id, const HubOptions& options,
                          const ModelCache& cache, bool force, Progress& progress) {
  try {
    return pull(name, id, options, cache, force, progress);
  } catch (const fs::filesystem_error& e) {
    throw Failure(ErrorCode::kIo, fmt::format("{}: {}", e.path1().string(), e.code().message()));
  }
}

}  // namespace spear
