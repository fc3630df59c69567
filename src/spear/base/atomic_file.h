// Writes a file so that a reader, or a kill at any moment, sees either the old bytes or all the new
// ones: a temporary name beside the target, fsync, rename, fsync of the folder. One owner, one
// thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "spear/base/error.h"

namespace spear {

class AtomicFile {
 public:
  // Throws Failure(kIo) when the folder cannot be written.
  explicit AtomicFile(std::filesystem::path target);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();  // without commit(): the temporary file is removed, the target stays as it was

  // Appends; throws Failure(kIo) naming the file and the reason (a full disk, say).
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Overwrites bytes already written, e.g. a header whose checksums are known last.
  void write_at(size_t offset, std::span<const std::byte> bytes);
  [[nodiscard]] size_t size() const { return size_; }
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  size_t size_ = 0;
};

// The whole of a small text file, at once.
void write_file_atomically(const std::filesystem::path& target, std::string_view text);

// Reads a whole file of at most `limit` bytes.
Result<std::string> read_text_file(const std::filesystem::path& path,
                                   size_t limit = size_t{1} << 30);

}  // namespace spear
