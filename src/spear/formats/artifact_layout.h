// The bytes of the .spear container (docs/artifact-format.md): a header of 64 bytes, sections at
// multiples of 64, a table of 128-byte entries at the end. Shared by reader and writer;
// little-endian like every machine we run on.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "spear/base/tensor_view.h"

namespace spear::artifact_layout {

static_assert(std::endian::native == std::endian::little);

// The first byte is not ASCII and the last two are a line end: a transfer as text shows at once.
inline constexpr std::array<char, 8> kMagic = {'\x89', 'S', 'P', 'E', 'A', 'R', '\r', '\n'};
inline constexpr uint32_t kVersion = 1;
inline constexpr uint64_t kAlignment = 64;
inline constexpr std::string_view kManifest = "manifest";

struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  uint32_t section_count = 0;
  uint64_t file_bytes = 0;
  uint64_t table_offset = 0;
  uint64_t table_checksum = 0;  // XXH3 of the table
  uint64_t reserved[2] = {};
  uint64_t checksum = 0;  // XXH3 of the 56 bytes before it
};
static_assert(sizeof(Header) == 64);
inline constexpr size_t kCheckedHeaderBytes = offsetof(Header, checksum);

struct Entry {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3 of the section
  uint64_t reserved = 0;
  std::array<char, 96> name = {};  // ASCII, zeros behind it, at least one
};
static_assert(sizeof(Entry) == 128);

constexpr uint64_t align_up(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

// Bits of one element; nothing for a type that the format does not have.
std::optional<int> bits_of(std::string_view dtype);
// Bytes of a tensor: rows of the last extent, each a little-endian bit stream padded to a byte.
// Nothing on overflow.
std::optional<int64_t> tensor_bytes(std::string_view dtype, const Shape& shape);

}  // namespace spear::artifact_layout
