#include <algorithm>

#include "spear/base/check.h"
#include "spear/base/json.h"
#include "spear/formats/artifact.h"
#include "spear/formats/artifact_layout.h"
#include "spear/formats/header_checks.h"

namespace spear {

using namespace artifact_layout;

namespace {

// Small tensors are packed tighter: a compensator has many, and padding counts as bytes of the
// model.
constexpr size_t kSmallTensorBytes = 4096;
constexpr uint64_t kSmallAlignment = 8;

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

ArtifactWriter::ArtifactWriter(const std::filesystem::path& target) : file_(target) {
  file_.write(bytes_of(Header{}));  // overwritten by commit()
}

void ArtifactWriter::append(std::span<const std::byte> bytes) {
  file_.write(bytes);
  if (digest_) digest_->update(bytes);
}

void ArtifactWriter::pad_to(uint64_t alignment) {
  static constexpr std::array<std::byte, kAlignment> kZeros = {};
  const uint64_t missing = align_up(file_.size(), alignment) - file_.size();
  append(std::span(kZeros).first(static_cast<size_t>(missing)));
}

void ArtifactWriter::begin_section(std::string_view name) {
  expects(!digest_ && is_visible_name(name, Entry{}.name.size() - 1));
  for (const WrittenSection& section : sections_) expects(section.name != name);
  pad_to(kAlignment);
  sections_.push_back({std::string(name), file_.size(), 0, 0});
  digest_ = std::make_unique<Xxh3>();
}

void ArtifactWriter::end_section() {
  expects(digest_ != nullptr);
  WrittenSection& section = sections_.back();
  section.bytes = file_.size() - section.offset;
  section.checksum = digest_->digest();
  digest_.reset();
}

void ArtifactWriter::add_section(std::string_view name, std::span<const std::byte> bytes) {
  begin_section(name);
  append(bytes);
  end_section();
}

void ArtifactWriter::add_section(std::string_view name, std::string_view text) {
  add_section(name, std::as_bytes(std::span(text)));
}

void ArtifactWriter::add_tensor(std::string_view name, std::string_view dtype, const Shape& shape,
                                std::span<const std::byte> bytes) {
  expects(digest_ != nullptr && is_visible_name(name, kMaxTensorName));
  expects(tensor_bytes(dtype, shape) == static_cast<int64_t>(bytes.size()));
  pad_to(bytes.size() < kSmallTensorBytes ? kSmallAlignment : kAlignment);
  tensors_.push_back({std::string(name), std::string(dtype), shape, sections_.back().name,
                      file_.size() - sections_.back().offset});
  append(bytes);
}

// {"tensors": {SECTION: [[NAME, TYPE, [EXTENT, ...], OFFSET], ...]}}
std::string ArtifactWriter::manifest() const {
  Json by_section = Json::object();
  for (const WrittenTensor& tensor : tensors_) {
    Json shape = Json::array();
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) shape.push_back(tensor.shape[axis]);
    by_section[tensor.section].push_back(
        Json::array({tensor.name, tensor.dtype, std::move(shape), tensor.offset}));
  }
  return Json{{"tensors", std::move(by_section)}}.dump();
}

void ArtifactWriter::commit() {
  std::vector<std::string_view> names;
  for (const WrittenTensor& tensor : tensors_) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  expects(std::adjacent_find(names.begin(), names.end()) == names.end());
  add_section(kManifest, manifest());
  pad_to(kAlignment);
  Header header;
  header.table_offset = file_.size();
  header.section_count = static_cast<uint32_t>(sections_.size());
  Xxh3 table;
  for (const WrittenSection& section : sections_) {
    Entry entry{section.offset, section.bytes, section.checksum, 0, {}};
    std::copy(section.name.begin(), section.name.end(), entry.name.begin());
    file_.write(bytes_of(entry));
    table.update(bytes_of(entry));
  }
  header.table_checksum = table.digest();
  header.file_bytes = file_.size();
  header.checksum = xxh3(bytes_of(header).first(kCheckedHeaderBytes));
  file_.write_at(0, bytes_of(header));
  file_.commit();
}

}  // namespace spear
