#include "spear/eval/shard_store.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <system_error>

#include <fmt/core.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/base/log.h"
#include "spear/base/mapped_file.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKeyFile = "key.txt";
constexpr uint64_t kMagic = 0x3144524148535053;  // "SPSHARD1", little-endian

struct Header {
  uint64_t magic = kMagic;
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3 of the payload
};

std::span<const std::byte> bytes_of(const Header& header) {
  return std::as_bytes(std::span(&header, 1));
}

std::optional<std::vector<std::byte>> read_shard(const fs::path& path, size_t expected_bytes) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  auto file = MappedFile::open(path);
  if (!file) return std::nullopt;
  const auto bytes = file->bytes();
  Header header;
  if (bytes.size() != sizeof header + expected_bytes) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto payload = bytes.subspan(sizeof header);
  if (header.magic != kMagic || header.bytes != payload.size() || header.checksum != xxh3(payload))
    return std::nullopt;
  return std::vector<std::byte>(payload.begin(), payload.end());
}

struct StoredKey {
  fs::path folder;
  fs::file_time_type used;
  uint64_t bytes = 0;
};

std::vector<StoredKey> stored_keys(const fs::path& root) {
  std::vector<StoredKey> keys;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root, error)) {
    const fs::path stamp = entry.path() / kKeyFile;
    if (!entry.is_directory(error) || !fs::exists(stamp, error)) continue;
    StoredKey key{.folder = entry.path(), .used = fs::last_write_time(stamp, error)};
    for (const auto& file : fs::directory_iterator(entry.path(), error))
      if (file.is_regular_file(error)) key.bytes += file.file_size(error);
    keys.push_back(std::move(key));
  }
  return keys;
}

}  // namespace

ShardStore::ShardStore(const fs::path& root, std::string_view key) {
  if (root.empty()) return;
  folder_ = root / sha256_hex(std::as_bytes(std::span(key))).substr(0, 32);
  std::error_code error;
  fs::create_directories(folder_, error);
  const fs::path stamp = folder_ / kKeyFile;
  if (!fs::exists(stamp, error)) write_file_atomically(stamp, std::string(key) + "\n");
  fs::last_write_time(stamp, fs::file_time_type::clock::now(), error);  // used now: trimmed last
}

fs::path ShardStore::file_of(int64_t shard) const {
  return folder_ / fmt::format("{:06}.shard", shard);
}

std::optional<std::vector<std::byte>> ShardStore::get(int64_t shard, size_t expected_bytes) const {
  if (!folder_.empty()) return read_shard(file_of(shard), expected_bytes);
  const auto found = memory_.find(shard);
  if (found == memory_.end() || found->second.size() != expected_bytes) return std::nullopt;
  return found->second;
}

void ShardStore::put(int64_t shard, std::vector<std::byte> bytes) {
  if (folder_.empty()) {
    memory_[shard] = std::move(bytes);
    return;
  }
  const Header header{.bytes = bytes.size(), .checksum = xxh3(bytes)};
  std::error_code error;
  std::filesystem::create_directories(folder_, error);  // trimmed meanwhile by another process
  AtomicFile file(file_of(shard));
  file.write(bytes_of(header));
  file.write(bytes);
  file.commit();
}

uint64_t trim_shard_stores(const fs::path& root, uint64_t limit) {
  std::vector<StoredKey> keys = stored_keys(root);
  std::sort(keys.begin(), keys.end(),
            [](const StoredKey& a, const StoredKey& b) { return a.used < b.used; });
  uint64_t total = 0;
  for (const StoredKey& key : keys) total += key.bytes;
  for (const StoredKey& key : keys) {
    if (total <= limit) break;
    std::error_code error;
    fs::remove_all(key.folder, error);
    if (!error) total -= key.bytes;
  }
  return total;
}

}  // namespace spear
