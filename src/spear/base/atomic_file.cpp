#include "spear/base/atomic_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "spear/base/check.h"

namespace spear {
namespace {

[[noreturn]] void throw_io(const std::filesystem::path& path, const char* what) {
  throw Failure(ErrorCode::kIo,
                fmt::format("{}: {}: {}", path.string(), what, std::strerror(errno)));
}

void write_all(int fd, std::span<const std::byte> bytes, off_t offset,
               const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw_io(path, "cannot write");
    bytes = bytes.subspan(static_cast<size_t>(done));
    offset += done;
  }
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path target) : target_(std::move(target)) {
  // A name of its own, whatever another writer of this target or a killed run left behind.
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = target_;
    temporary_ += fmt::format(".tmp{}-{}", ::getpid(), attempt);
    fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd_ < 0 && errno != EEXIST) throw_io(target_, "cannot create a file beside it");
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_all(fd_, bytes, static_cast<off_t>(size_), temporary_);
  size_ += bytes.size();
}

void AtomicFile::write_at(size_t offset, std::span<const std::byte> bytes) {
  expects(offset + bytes.size() <= size_);
  write_all(fd_, bytes, static_cast<off_t>(offset), temporary_);
}

void AtomicFile::commit() {
  expects(fd_ >= 0);
  if (::fsync(fd_) != 0) throw_io(temporary_, "cannot flush to disk");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw_io(target_, "cannot rename into place");
  ::close(std::exchange(fd_, -1));
  const std::filesystem::path folder = target_.has_parent_path() ? target_.parent_path() : ".";
  if (const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

void write_file_atomically(const std::filesystem::path& target, std::string_view text) {
  AtomicFile file(target);
  file.write(text);
  file.commit();
}

Result<std::string> read_text_file(const std::filesystem::path& path, size_t limit) {
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    return fail(ErrorCode::kNotFound, fmt::format("{}: no such file", path.string()));
  if (!std::filesystem::is_regular_file(path, error))
    return fail(ErrorCode::kIo, fmt::format("{}: not a regular file", path.string()));
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > limit)
    return fail(ErrorCode::kBadFile, fmt::format("{}: {} bytes, at most {} are read as text",
                                                 path.string(), size, limit));
  std::ifstream stream(path, std::ios::binary);
  std::string text(size, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(size));
  if (!stream || static_cast<uintmax_t>(stream.gcount()) != size)
    return fail(ErrorCode::kIo, fmt::format("{}: cannot read", path.string()));
  return text;
}

}  // namespace spear
