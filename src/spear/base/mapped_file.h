// A file mapped read-only. The bytes are hostile until a format has checked them. The file is
// locked against nothing: replace a model by writing a new file and renaming it
// (base/atomic_file.h), never in place.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "spear/base/error.h"

namespace spear {

class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // True when the file on disk is now shorter than the mapping: reading on would raise SIGBUS.
  [[nodiscard]] bool shrunk() const;
  // Gives back the memory of pages that have been read and are not needed soon: they still can be
  // read.
  void release(std::span<const std::byte> part) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
};

}  // namespace spear
