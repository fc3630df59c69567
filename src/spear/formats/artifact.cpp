#include "spear/formats/artifact.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "spear/formats/byte_reader.h"

namespace spear {

Result<Artifact> Artifact::open(const std::filesystem::path& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return tl::unexpected(mapped.error());
  Artifact out;
  out.file_ = std::move(*mapped);
  auto index = parse_artifact(out.file_.bytes(), path.string());
  if (!index) return tl::unexpected(index.error());
  out.index_ = std::move(*index);
  return out;
}

bool Artifact::has(std::string_view section) const {
  return std::any_of(index_.sections.begin(), index_.sections.end(),
                     [&](const ArtifactSection& s) { return s.name == section; });
}

Result<std::span<const std::byte>> Artifact::section(std::string_view name) const {
  for (const ArtifactSection& section : index_.sections)
    if (section.name == name) return section.bytes;
  return fail(ErrorCode::kBadFile,
              fmt::format("{}: section \"{}\" is missing", file_.path().string(), name));
}

Result<std::string_view> Artifact::text(std::string_view name) const {
  const auto bytes = section(name);
  if (!bytes) return tl::unexpected(bytes.error());
  return as_text(*bytes);
}

const ArtifactTensor* Artifact::find(std::string_view tensor) const {
  const auto at = std::lower_bound(
      index_.tensors.begin(), index_.tensors.end(), tensor,
      [](const ArtifactTensor& t, std::string_view wanted) { return t.name < wanted; });
  return at == index_.tensors.end() || at->name != tensor ? nullptr : &*at;
}

Result<std::span<const std::byte>> Artifact::tensor(std::string_view name, std::string_view dtype,
                                                    const Shape& shape) const {
  const ArtifactTensor* found = find(name);
  const std::string path = file_.path().string();
  if (found == nullptr)
    return fail(ErrorCode::kBadFile, fmt::format("{}: tensor \"{}\" is missing", path, name));
  if (found->dtype != dtype || !(found->shape == shape))
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: tensor \"{}\": {} {}, expected {} {}", path, name, found->dtype,
                            found->shape.text(), dtype, shape.text()));
  return found->bytes;
}

Result<void> Artifact::verify() const {
  if (file_.shrunk())
    return fail(ErrorCode::kIo,
                fmt::format("{}: became shorter while it was read", file_.path().string()));
  return verify_artifact(index_, file_.bytes(), file_.path().string());
}

}  // namespace spear
