// The tensor types of GGUF files that spear reads: names, block sizes, and dequantization to float.
// Pure functions without state: call them from any thread on disjoint rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spear {

// Names and numbers are those of the file format.
// NOLINTBEGIN(readability-identifier-naming)
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};
// NOLINTEND(readability-identifier-naming)

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;
  int64_t block_values;  // values stored together
  int64_t block_bytes;   // and the bytes they take
};

// What is known of a type number of a file; nothing for types that spear does not read.
std::optional<GgmlTypeInfo> find_ggml_type(uint32_t number);
// "IQ4_NL", "type 99": for messages about types that spear does not read.
std::string name_of_ggml_type(uint32_t number);
// "F32, F16, Q4_0, ..." for messages.
std::string readable_ggml_types();

GgmlTypeInfo info_of(GgmlType type);
// Bytes of one row; `columns` is a multiple of block_values.
int64_t row_bytes(GgmlType type, int64_t columns);

// Values of `rows` consecutive rows.
void dequantize_rows(GgmlType type, int64_t rows, int64_t columns,
                     const std::byte* packed,  // [rows, row_bytes(type, columns)]
                     float* out);              // [rows, columns]

}  // namespace spear
