// The container of a .spear file (docs/artifact-format.md): named, checksummed, 64-byte aligned
// sections, and a manifest that names the tensors inside them. What is in an opened artifact is
// where the file says, inside the file, over nothing else; verify() adds that every byte is as it
// was written. Immutable: read from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/atomic_file.h"
#include "spear/base/error.h"
#include "spear/base/hash.h"
#include "spear/base/mapped_file.h"
#include "spear/base/tensor_view.h"

namespace spear {

struct ArtifactSection {
  std::string name;
  uint64_t offset = 0;  // in the file
  uint64_t checksum = 0;
  std::span<const std::byte> bytes;
};

// Types: f32, f16, bf16, i32, i8, u8, and u2, u3, u4, i4, u6, whose rows are little-endian bit
// streams padded to a byte.
struct ArtifactTensor {
  std::string name;   // "layers.3.mlp.down_proj.codes"
  std::string dtype;  // "u4"
  Shape shape;
  std::string section;
  std::span<const std::byte> bytes;
};

// The pure part: sections and tensors of bytes that outlive the result. `source` is named in
// errors.
struct ArtifactIndex {
  uint32_t version = 0;
  std::vector<ArtifactSection> sections;  // in the order of their bytes
  std::vector<ArtifactTensor> tensors;    // sorted by name
};
Result<ArtifactIndex> parse_artifact(std::span<const std::byte> bytes, std::string_view source);
// Every checksum, and zeros wherever nothing is stored.
Result<void> verify_artifact(const ArtifactIndex& index, std::span<const std::byte> bytes,
                             std::string_view source);

class Artifact {
 public:
  static Result<Artifact> open(const std::filesystem::path& path);

  [[nodiscard]] std::span<const ArtifactSection> sections() const { return index_.sections; }
  [[nodiscard]] std::span<const ArtifactTensor> tensors() const { return index_.tensors; }
  [[nodiscard]] uint32_t version() const { return index_.version; }
  [[nodiscard]] const MappedFile& file() const { return file_; }

  [[nodiscard]] bool has(std::string_view section) const;
  // The bytes of a section; kBadFile naming the section when the file has none.
  [[nodiscard]] Result<std::span<const std::byte>> section(std::string_view name) const;
  [[nodiscard]] Result<std::string_view> text(std::string_view name) const;
  // A tensor or null; the second form refuses a missing one, another type, another shape.
  [[nodiscard]] const ArtifactTensor* find(std::string_view tensor) const;
  [[nodiscard]] Result<std::span<const std::byte>> tensor(std::string_view name,
                                                          std::string_view dtype,
                                                          const Shape& shape) const;
  [[nodiscard]] Result<void> verify() const;

 private:
  MappedFile file_;
  ArtifactIndex index_;
};

// Writes one artifact from front to back. Nothing stands at the target until commit(); throws
// Failure(kIo) when the disk says no, and the old file stays. One owner, one thread.
class ArtifactWriter {
 public:
  explicit ArtifactWriter(const std::filesystem::path& target);

  // A whole section at once.
  void add_section(std::string_view name, std::span<const std::byte> bytes);
  void add_section(std::string_view name, std::string_view text);
  // A section of tensors: begin, add each, end. Tensor names are unique in the file.
  void begin_section(std::string_view name);
  void add_tensor(std::string_view name, std::string_view dtype, const Shape& shape,
                  std::span<const std::byte> bytes);
  void end_section();
  // Writes manifest and table, then puts the file in its place.
  void commit();
  [[nodiscard]] size_t size() const { return file_.size(); }

 private:
  struct WrittenSection {
    std::string name;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    uint64_t checksum = 0;
  };
  struct WrittenTensor {
    std::string name;
    std::string dtype;
    Shape shape;
    std::string section;
    uint64_t offset = 0;  // in the section
  };
  void pad_to(uint64_t alignment);
  void append(std::span<const std::byte> bytes);
  [[nodiscard]] std::string manifest() const;

  AtomicFile file_;
  std::vector<WrittenSection> sections_;
  std::vector<WrittenTensor> tensors_;
  std::unique_ptr<Xxh3> digest_;  // of the open section; null: none is open
};

}  // namespace spear
