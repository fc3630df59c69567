#include "spear/formats/artifact_layout.h"

#include <utility>

#include "spear/formats/byte_reader.h"

namespace spear::artifact_layout {
namespace {

constexpr std::pair<std::string_view, int> kTypes[] = {
    {"f32", 32}, {"i32", 32}, {"f16", 16}, {"bf16", 16}, {"u8", 8}, {"i8", 8},
    {"u2", 2},   {"u3", 3},   {"u4", 4},   {"i4", 4},    {"u6", 6},
};

}  // namespace

std::optional<int> bits_of(std::string_view dtype) {
  for (const auto& [name, bits] : kTypes)
    if (name == dtype) return bits;
  return std::nullopt;
}

std::optional<int64_t> tensor_bytes(std::string_view dtype, const Shape& shape) {
  const auto bits = bits_of(dtype);
  if (!bits || shape.rank() == 0) return std::nullopt;
  std::optional<int64_t> total = checked_product(shape[shape.rank() - 1], *bits);
  if (!total || *total > INT64_MAX - 7) return std::nullopt;
  total = (*total + 7) / 8;
  for (int axis = 0; axis + 1 < shape.rank(); ++axis)
    total = total ? checked_product(*total, shape[axis]) : std::nullopt;
  return total;
}

}  // namespace spear::artifact_layout
