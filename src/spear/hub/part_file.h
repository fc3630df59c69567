// A file on its way here: appended to, kept when the download breaks off, continued by the next
// one. One owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "spear/base/error.h"

namespace spear {

class PartFile {
 public:
  // Opens or makes it; throws Failure(kIo).
  explicit PartFile(std::filesystem::path path);
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile();

  [[nodiscard]] int64_t bytes() const { return bytes_; }
  void append(std::span<const std::byte> piece);  // throws Failure(kIo), a full disk by name
  void cut(int64_t bytes);
  void flush_to_disk();

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t bytes_ = 0;
};

// The name git gives a file's content: SHA-1 over "blob <size>\0" and the bytes. Hubs publish it
// for small files.
Result<std::string> git_blob_sha1(const std::filesystem::path& path);

}  // namespace spear
