// Any bytes as a .spear file, and the same with the checksums made right, so that what stands
// behind them is reached: refused by a sentence, or every section and tensor lies inside the file.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "spear/base/hash.h"
#include "spear/formats/artifact.h"
#include "spear/formats/artifact_layout.h"

namespace {

using namespace spear;
using namespace artifact_layout;

void check(std::span<const std::byte> bytes) {
  const auto index = parse_artifact(bytes, "fuzz");
  if (!index) {
    if (index.error().message.empty()) std::abort();
    return;
  }
  const auto inside = [](std::span<const std::byte> part, std::span<const std::byte> whole) {
    return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
  };
  for (const ArtifactSection& section : index->sections)
    if (!inside(section.bytes, bytes)) std::abort();
  for (const ArtifactTensor& tensor : index->tensors)
    if (!inside(tensor.bytes, bytes) ||
        tensor_bytes(tensor.dtype, tensor.shape) != static_cast<int64_t>(tensor.bytes.size()))
      std::abort();
  (void)verify_artifact(*index, bytes, "fuzz");
}

// Magic, length and checksums as they must be; the rest stays as it came.
void repair(std::vector<std::byte>& bytes) {
  Header header;
  if (bytes.size() < sizeof header) return;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.magic = kMagic;
  header.version = kVersion;
  header.file_bytes = bytes.size();
  std::memset(header.reserved, 0, sizeof header.reserved);
  const uint64_t table_bytes = (header.section_count %= 8) * sizeof(Entry);
  if (table_bytes <= bytes.size() - sizeof header) {
    header.table_offset = bytes.size() - table_bytes;
    std::byte* table = bytes.data() + header.table_offset;
    for (uint32_t i = 0; i < header.section_count; ++i) {
      Entry entry;
      std::memcpy(&entry, table + i * sizeof entry, sizeof entry);
      if (entry.offset <= bytes.size() && entry.bytes <= bytes.size() - entry.offset)
        entry.checksum = xxh3(std::span(bytes).subspan(entry.offset, entry.bytes));
      std::memcpy(table + i * sizeof entry, &entry, sizeof entry);
    }
    header.table_checksum = xxh3(std::span(bytes).subspan(header.table_offset));
  }
  header.checksum = xxh3(std::as_bytes(std::span(&header, 1)).first(kCheckedHeaderBytes));
  std::memcpy(bytes.data(), &header, sizeof header);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  check(bytes);
  std::vector<std::byte> repaired(bytes.begin(), bytes.end());
  repair(repaired);
  check(repaired);
  return 0;
}
