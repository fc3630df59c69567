#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/base/printable.h"
#include "spear/formats/artifact.h"
#include "spear/formats/artifact_layout.h"
#include "spear/formats/byte_reader.h"
#include "spear/formats/header_checks.h"

namespace spear {

using namespace artifact_layout;

namespace {

constexpr uint64_t kMaxManifestBytes = uint64_t{16} << 20;

// Reads header, table and manifest; every function leaves an error sentence or a checked part.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view source)
      : bytes_(bytes), source_(source) {}

  Result<ArtifactIndex> parse() {
    if (auto ok = read_header(); !ok) return tl::unexpected(ok.error());
    if (auto ok = read_table(); !ok) return tl::unexpected(ok.error());
    if (auto ok = read_manifest(); !ok) return tl::unexpected(ok.error());
    return std::move(index_);
  }

 private:
  template <class... Args>
  tl::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...)));
  }

  Result<void> read_header() {
    if (bytes_.size() < kMagic.size() ||
        std::memcmp(bytes_.data(), kMagic.data(), kMagic.size()) != 0)
      return bad("not a .spear file: it does not begin with the magic bytes");
    if (bytes_.size() < sizeof header_)
      return bad("{} bytes are too few for a header of {}", bytes_.size(), sizeof header_);
    std::memcpy(&header_, bytes_.data(), sizeof header_);
    // Before the checksum: a newer version may keep its checksums elsewhere.
    if (header_.version > kVersion)
      return fail(
          ErrorCode::kUnsupported,
          fmt::format("{}: artifact version {}; this spear reads up to version {}: update spear",
                      source_, header_.version, kVersion));
    if (header_.version == 0) return bad("artifact version 0; versions begin at 1");
    if (header_.checksum != xxh3(bytes_.first(kCheckedHeaderBytes)))
      return bad("header: the checksum does not match: the file is damaged");
    if (header_.reserved[0] != 0 || header_.reserved[1] != 0)
      return bad("header: reserved bytes are not zero");
    if (header_.file_bytes != bytes_.size())
      return bad("the file has {} bytes, its header says {}: it is cut or damaged", bytes_.size(),
                 header_.file_bytes);
    index_.version = header_.version;
    return {};
  }

  Result<void> read_table() {
    const uint64_t table_bytes = uint64_t{header_.section_count} * sizeof(Entry);
    if (header_.table_offset % kAlignment != 0 || header_.table_offset < sizeof header_ ||
        header_.table_offset > bytes_.size() || bytes_.size() - header_.table_offset != table_bytes)
      return bad("section table: {} entries at byte {} do not end the file of {} bytes",
                 header_.section_count, header_.table_offset, bytes_.size());
    const auto table = bytes_.subspan(static_cast<size_t>(header_.table_offset));
    if (header_.table_checksum != xxh3(table))
      return bad("section table: the checksum does not match: the file is damaged");
    uint64_t previous_end = sizeof header_;
    for (uint32_t i = 0; i < header_.section_count; ++i) {
      Entry entry;
      std::memcpy(&entry, table.data() + i * sizeof entry, sizeof entry);
      if (auto ok = add_section(i, entry, previous_end); !ok) return ok;
      previous_end = entry.offset + entry.bytes;
    }
    std::vector<std::string_view> names;
    for (const ArtifactSection& section : index_.sections) names.push_back(section.name);
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    if (twin != names.end()) return bad("section \"{}\" stands twice", *twin);
    return {};
  }

  Result<void> add_section(uint32_t number, const Entry& entry, uint64_t previous_end) {
    const auto end = std::find(entry.name.begin(), entry.name.end(), '\0');
    const std::string name(entry.name.begin(), end);
    if (!is_visible_name(name, entry.name.size() - 1) ||
        std::any_of(end, entry.name.end(), [](char c) { return c != '\0'; }))
      return bad(
          "section {}: the name {} is not 1 to {} printable ASCII characters with zeros "
          "behind",
          number, printable(name), entry.name.size() - 1);
    if (entry.reserved != 0) return bad("section \"{}\": reserved bytes are not zero", name);
    if (entry.offset % kAlignment != 0)
      return bad("section \"{}\": offset {} is not a multiple of {}", name, entry.offset,
                 kAlignment);
    if (entry.offset < previous_end)
      return bad("section \"{}\": begins at byte {}, inside what ends at byte {}", name,
                 entry.offset, previous_end);
    if (entry.offset > header_.table_offset || entry.bytes > header_.table_offset - entry.offset)
      return bad("section \"{}\": {} bytes at byte {} run into the table at byte {}", name,
                 entry.bytes, entry.offset, header_.table_offset);
    index_.sections.push_back(
        {name, entry.offset, entry.checksum,
         bytes_.subspan(static_cast<size_t>(entry.offset), static_cast<size_t>(entry.bytes))});
    return {};
  }

  Result<void> read_manifest() {
    const ArtifactSection* section = find_section(kManifest);
    if (section == nullptr) return bad("section \"{}\" is missing", kManifest);
    if (section->bytes.size() > kMaxManifestBytes)
      return bad("section \"{}\": {} bytes, at most {} are read", kManifest, section->bytes.size(),
                 kMaxManifestBytes);
    if (section->checksum != xxh3(section->bytes))
      return bad("section \"{}\": the checksum does not match: the file is damaged", kManifest);
    const auto json =
        parse_sorted_json(as_text(section->bytes), source_ + ": section \"manifest\"", 8);
    if (!json) return tl::unexpected(json.error());
    const auto tensors = json->is_object() ? json->find("tensors") : json->end();
    if (!json->is_object() || tensors == json->end() || !tensors->is_object())
      return bad("section \"{}\": an object \"tensors\" expected", kManifest);
    for (const auto& [name, list] : tensors->items())
      if (auto ok = read_tensors(name, list); !ok) return ok;
    std::sort(index_.tensors.begin(), index_.tensors.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    for (size_t i = 1; i < index_.tensors.size(); ++i)
      if (index_.tensors[i - 1].name == index_.tensors[i].name)
        return bad("tensor \"{}\" stands twice", index_.tensors[i].name);
    return {};
  }

  Result<void> read_tensors(const std::string& section_name, const SortedJson& list) {
    const ArtifactSection* section = find_section(section_name);
    if (section == nullptr || section_name == kManifest)
      return bad("manifest: tensors in section {}, which the file does not have",
                 printable(section_name));
    if (!list.is_array())
      return bad("manifest: section \"{}\": a list of tensors expected", section_name);
    uint64_t previous_end = 0;
    for (const SortedJson& item : list) {
      auto tensor = read_tensor(*section, item, previous_end);
      if (!tensor) return tl::unexpected(tensor.error());
      previous_end = static_cast<uint64_t>(tensor->bytes.data() + tensor->bytes.size() -
                                           section->bytes.data());
      index_.tensors.push_back(std::move(*tensor));
    }
    return {};
  }

  // [NAME, TYPE, [EXTENT, ...], OFFSET]
  Result<ArtifactTensor> read_tensor(const ArtifactSection& section, const SortedJson& item,
                                     uint64_t previous_end) const {
    if (!item.is_array() || item.size() != 4 || !item[0].is_string() || !item[1].is_string() ||
        !item[3].is_number_unsigned())
      return bad("manifest: section \"{}\": [name, type, shape, offset] expected", section.name);
    ArtifactTensor out;
    out.name = item[0].get<std::string>();
    out.dtype = item[1].get<std::string>();
    out.section = section.name;
    const std::string shown = printable(out.name);
    if (!is_visible_name(out.name, kMaxTensorName))
      return bad("manifest: tensor {}: not a name of 1 to {} printable ASCII characters", shown,
                 kMaxTensorName);
    if (!bits_of(out.dtype))
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: tensor {}: type {} is not known to this spear", source_, shown,
                              printable(out.dtype)));
    const auto shape = read_shape(shown, item[2]);
    if (!shape) return tl::unexpected(shape.error());
    out.shape = *shape;
    const auto size = tensor_bytes(out.dtype, out.shape);
    if (!size) return bad("tensor {}: its size overflows 63 bits", shown);
    const auto offset = item[3].get<uint64_t>();
    if (offset < previous_end)
      return bad("tensor {}: begins at byte {} of section \"{}\", inside the tensor before it",
                 shown, offset, section.name);
    if (offset > section.bytes.size() ||
        static_cast<uint64_t>(*size) > section.bytes.size() - offset)
      return bad("tensor {}: {} bytes at byte {} run past section \"{}\" of {} bytes", shown, *size,
                 offset, section.name, section.bytes.size());
    if (offset % 8 != 0) return bad("tensor {}: offset {} is not a multiple of 8", shown, offset);
    out.bytes = section.bytes.subspan(static_cast<size_t>(offset), static_cast<size_t>(*size));
    return out;
  }

  Result<Shape> read_shape(const std::string& shown, const SortedJson& value) const {
    if (!value.is_array() || value.empty() || value.size() > Shape::kMaxRank)
      return bad("tensor {}: a shape of 1 to {} numbers expected", shown, Shape::kMaxRank);
    int64_t e[Shape::kMaxRank] = {};
    for (size_t axis = 0; axis < value.size(); ++axis) {
      const bool whole = value[axis].is_number_unsigned() && value[axis].get<uint64_t>() > 0 &&
                         value[axis].get<uint64_t>() <= uint64_t{1} << 48;
      if (!whole)
        return bad("tensor {}: dimension {} is not a whole number from 1 to 2^48", shown, axis);
      e[axis] = value[axis].get<int64_t>();
    }
    return shape_of(std::span(e, value.size()));
  }

  [[nodiscard]] const ArtifactSection* find_section(std::string_view name) const {
    for (const ArtifactSection& section : index_.sections)
      if (section.name == name) return &section;
    return nullptr;
  }

  std::span<const std::byte> bytes_;
  std::string source_;
  Header header_;
  ArtifactIndex index_;
};

}  // namespace

Result<ArtifactIndex> parse_artifact(std::span<const std::byte> bytes, std::string_view source) {
  return Reader(bytes, source).parse();
}

Result<void> verify_artifact(const ArtifactIndex& index, std::span<const std::byte> bytes,
                             std::string_view source) {
  const auto is_zero = [&](uint64_t begin, uint64_t end) {
    return std::all_of(bytes.begin() + static_cast<ptrdiff_t>(begin),
                       bytes.begin() + static_cast<ptrdiff_t>(end),
                       [](std::byte b) { return b == std::byte{0}; });
  };
  const uint64_t table = bytes.size() - index.sections.size() * sizeof(Entry);
  uint64_t previous_end = sizeof(Header);
  for (const ArtifactSection& section : index.sections) {
    if (section.checksum != xxh3(section.bytes))
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: section \"{}\": checksum {:016x}, {:016x} expected: the file is "
                              "damaged; get it again",
                              source, section.name, xxh3(section.bytes), section.checksum));
    if (!is_zero(previous_end, section.offset))
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: bytes before section \"{}\" are not zero: the "
                              "file is damaged",
                              source, section.name));
    previous_end = section.offset + section.bytes.size();
  }
  if (!is_zero(previous_end, table))
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: bytes before the section table are not zero: the file is damaged",
                            source));
  return {};
}

}  // namespace spear
