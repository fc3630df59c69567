#include "spear/hub/part_file.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spear/base/mapped_file.h"

namespace spear {
namespace {

[[noreturn]] void throw_io(const std::filesystem::path& path, const char* what) {
  const char* advice = errno == ENOSPC ? " (make room and run the same command again)" : "";
  throw Failure(ErrorCode::kIo,
                fmt::format("{}: {}: {}{}", path.string(), what, std::strerror(errno), advice));
}

}  // namespace

PartFile::PartFile(std::filesystem::path path) : path_(std::move(path)) {
  fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_io(path_, "cannot be opened for writing");
  struct stat info {};
  if (fstat(fd_, &info) != 0) throw_io(path_, "cannot be examined");
  bytes_ = info.st_size;
}

PartFile::~PartFile() {
  close(fd_);
}

void PartFile::append(std::span<const std::byte> piece) {
  while (!piece.empty()) {
    const ssize_t n = pwrite(fd_, piece.data(), piece.size(), bytes_);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw_io(path_, "cannot write");
    bytes_ += n;
    piece = piece.subspan(static_cast<size_t>(n));
  }
}

void PartFile::cut(int64_t bytes) {
  if (ftruncate(fd_, bytes) != 0) throw_io(path_, "cannot be cut");
  bytes_ = bytes;
}

void PartFile::flush_to_disk() {
  if (fsync(fd_) != 0) throw_io(path_, "cannot be written to disk");
}

Result<std::string> git_blob_sha1(const std::filesystem::path& path) {
  const Result<MappedFile> file = MappedFile::open(path);
  if (!file) return tl::unexpected(file.error());
  const std::span<const std::byte> bytes = file->bytes();
  const std::string header = fmt::format("blob {}", bytes.size()) + '\0';
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha1(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), header.data(), header.size()) != 1 ||
      EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), digest.data(), &length) != 1)
    return fail(ErrorCode::kInternal, "the cryptography library has no SHA-1");
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace spear
