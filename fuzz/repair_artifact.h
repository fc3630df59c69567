// Makes the magic, length and checksums of an artifact what they must be and leaves the rest as it
// came: without it no mutation would get past the checksums.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "spear/base/hash.h"
#include "spear/formats/artifact_layout.h"

namespace spear::fuzz {

inline constexpr uint32_t kMostSections = 8;

// Table entries that lie inside the file get the checksum of their bytes.
inline void repair_table(std::span<std::byte> bytes, artifact_layout::Header& header) {
  using artifact_layout::Entry;
  header.section_count %= kMostSections;
  const uint64_t table_bytes = header.section_count * sizeof(Entry);
  if (table_bytes > bytes.size() - sizeof header) return;
  header.table_offset = bytes.size() - table_bytes;
  std::byte* table = bytes.data() + header.table_offset;
  for (uint32_t i = 0; i < header.section_count; ++i) {
    Entry entry;
    std::memcpy(&entry, table + i * sizeof entry, sizeof entry);
    if (entry.offset <= bytes.size() && entry.bytes <= bytes.size() - entry.offset)
      entry.checksum = xxh3(bytes.subspan(entry.offset, entry.bytes));
    std::memcpy(table + i * sizeof entry, &entry, sizeof entry);
  }
  header.table_checksum = xxh3(bytes.subspan(header.table_offset));
}

inline std::vector<std::byte> repaired_artifact(std::span<const std::byte> input) {
  std::vector<std::byte> bytes(input.begin(), input.end());
  artifact_layout::Header header;
  if (bytes.size() < sizeof header) return bytes;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.magic = artifact_layout::kMagic;
  header.version = artifact_layout::kVersion;
  header.file_bytes = bytes.size();
  std::memset(header.reserved, 0, sizeof header.reserved);
  repair_table(bytes, header);
  header.checksum =
      xxh3(std::as_bytes(std::span(&header, 1)).first(artifact_layout::kCheckedHeaderBytes));
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

}  // namespace spear::fuzz
