// GGUF files, versions 2 and 3: typed metadata and a table of tensors over a mapped file.
// Everything a parsed file says has been checked against the file's own size before memory was
// taken for it: counts, lengths, types, offsets, alignment, overlaps. Immutable once opened: read
// it from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/mapped_file.h"
#include "spear/base/tensor_view.h"
#include "spear/formats/ggml_types.h"

namespace spear {

// The numbers are those of the file format.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

std::string_view name_of(GgufType type);

// One metadata value. Text and numbers point into the mapped file.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  std::span<const std::byte> bytes;  // a scalar's, a string's, or a numeric array's elements
  GgufType element_type = GgufType::kUint8;  // of an array
  uint64_t count = 0;                        // of an array
  std::vector<std::string_view> strings;     // an array of strings
  std::vector<GgufValue> arrays;             // an array of arrays

  // The value when it is of that kind (and fits); nothing otherwise.
  [[nodiscard]] std::optional<int64_t> as_integer() const;  // every integer type and bool
  [[nodiscard]] std::optional<double> as_real() const;      // every numeric type
  [[nodiscard]] std::optional<bool> as_bool() const;
  [[nodiscard]] std::optional<std::string_view> as_text() const;
  // Element `index` of a numeric array.
  [[nodiscard]] std::optional<int64_t> integer_at(uint64_t index) const;
  [[nodiscard]] std::optional<double> real_at(uint64_t index) const;
};

struct GgufEntry {
  std::string_view key;
  GgufValue value;
};

struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::kF32;
  Shape shape;                       // row-major: [rows, columns]; the file stores it reversed
  std::span<const std::byte> bytes;  // rows of row_bytes(type, columns)
};

struct GgufIndex {
  uint32_t version = 0;
  std::vector<GgufEntry> entries;
  std::vector<GgufTensor> tensors;
};

// The pure part: parses bytes that outlive the result. `source` is named in errors.
Result<GgufIndex> parse_gguf(std::span<const std::byte> bytes, std::string_view source);

class GgufFile {
 public:
  static Result<GgufFile> open(const std::filesystem::path& path);

  [[nodiscard]] std::span<const GgufTensor> tensors() const { return index_.tensors; }
  [[nodiscard]] std::span<const GgufEntry> entries() const { return index_.entries; }
  [[nodiscard]] const GgufValue* find(std::string_view key) const;
  [[nodiscard]] const GgufTensor* find_tensor(std::string_view name) const;
  [[nodiscard]] const MappedFile& file() const { return file_; }

  // The value under a key of the wanted kind. A missing key or a wrong kind is an error that names
  // both.
  [[nodiscard]] Result<int64_t> integer(std::string_view key) const;
  [[nodiscard]] Result<double> real(std::string_view key) const;
  [[nodiscard]] Result<std::string_view> text(std::string_view key) const;

 private:
  MappedFile file_;
  GgufIndex index_;
  std::vector<uint32_t> keys_by_name_;     // positions sorted by key
  std::vector<uint32_t> tensors_by_name_;  // positions sorted by name
};

}  // namespace spear
