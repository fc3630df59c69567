#include "spear/formats/gguf_value.h"

#include <array>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace spear {
namespace {

constexpr std::array<std::string_view, 13> kTypeNames = {
    "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
    "bool",  "string", "array",  "uint64", "int64",  "float64"};

// Bytes of a scalar; 0 for strings and arrays.
size_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

// The smallest an element can be in the file: bounds how many there can be.
uint64_t least_bytes(GgufType type) {
  if (type == GgufType::kString) return 8;
  if (type == GgufType::kArray) return 12;
  return scalar_bytes(type);
}

template <class T>
T load(std::span<const std::byte> bytes, uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

std::optional<int64_t> integer_from(GgufType type, std::span<const std::byte> bytes, uint64_t i) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kBool:
      return load<uint8_t>(bytes, i);
    case GgufType::kInt8:
      return load<int8_t>(bytes, i);
    case GgufType::kUint16:
      return load<uint16_t>(bytes, i);
    case GgufType::kInt16:
      return load<int16_t>(bytes, i);
    case GgufType::kUint32:
      return load<uint32_t>(bytes, i);
    case GgufType::kInt32:
      return load<int32_t>(bytes, i);
    case GgufType::kInt64:
      return load<int64_t>(bytes, i);
    case GgufType::kUint64: {
      const auto value = load<uint64_t>(bytes, i);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> real_from(GgufType type, std::span<const std::byte> bytes, uint64_t i) {
  if (type == GgufType::kFloat32) return load<float>(bytes, i);
  if (type == GgufType::kFloat64) return load<double>(bytes, i);
  if (type == GgufType::kUint64) return static_cast<double>(load<uint64_t>(bytes, i));
  const auto integer = integer_from(type, bytes, i);
  if (!integer) return std::nullopt;
  return static_cast<double>(*integer);
}

tl::unexpected<std::string> problem(std::string sentence) {
  return tl::unexpected<std::string>(std::move(sentence));
}

}  // namespace

std::string_view name_of(GgufType type) {
  const auto number = static_cast<size_t>(type);
  return number < kTypeNames.size() ? kTypeNames[number] : "an unknown type";
}

std::optional<int64_t> GgufValue::as_integer() const {
  return integer_from(type, bytes, 0);
}

std::optional<double> GgufValue::as_real() const {
  return real_from(type, bytes, 0);
}

std::optional<bool> GgufValue::as_bool() const {
  if (type != GgufType::kBool) return std::nullopt;
  return load<uint8_t>(bytes, 0) != 0;
}

std::optional<std::string_view> GgufValue::as_text() const {
  if (type != GgufType::kString) return std::nullopt;
  return spear::as_text(bytes);
}

std::optional<int64_t> GgufValue::integer_at(uint64_t index) const {
  if (type != GgufType::kArray || index >= count) return std::nullopt;
  return integer_from(element_type, bytes, index);
}

std::optional<double> GgufValue::real_at(uint64_t index) const {
  if (type != GgufType::kArray || index >= count) return std::nullopt;
  return real_from(element_type, bytes, index);
}

tl::expected<GgufType, std::string> GgufValueReader::read_type() {
  const auto number = reader_.read<uint32_t>();
  if (!number) return problem("the file ends before its type");
  if (*number >= kTypeNames.size())
    return problem(
        fmt::format("value type {} is unknown, 0 to {} expected", *number, kTypeNames.size() - 1));
  return static_cast<GgufType>(*number);
}

tl::expected<GgufValue, std::string> GgufValueReader::read_value() {
  const auto type = read_type();
  if (!type) return problem(type.error());
  return read_payload(*type, 0);
}

tl::expected<GgufValue, std::string> GgufValueReader::read_payload(GgufType type, int depth) {
  if (type == GgufType::kArray) return read_array(depth);
  GgufValue out;
  out.type = type;
  if (type == GgufType::kString) {
    const auto text = read_string();
    if (!text) return problem(text.error());
    out.bytes = std::as_bytes(std::span(*text));
    return out;
  }
  const auto bytes = reader_.read_bytes(scalar_bytes(type));
  if (!bytes) return problem(fmt::format("the file ends inside a {}", name_of(type)));
  out.bytes = *bytes;
  if (type == GgufType::kBool && load<uint8_t>(*bytes, 0) > 1)
    return problem(fmt::format("a bool is 0 or 1, found {}", load<uint8_t>(*bytes, 0)));
  return out;
}

tl::expected<std::string_view, std::string> GgufValueReader::read_string() {
  const auto length = reader_.read<uint64_t>();
  if (!length) return problem("the file ends before a string's length");
  const auto text = reader_.read_bytes(*length);
  if (!text)
    return problem(fmt::format("a string of {} bytes runs past the end of the file ({} bytes left)",
                               *length, reader_.remaining()));
  return as_text(*text);
}

tl::expected<GgufValue, std::string> GgufValueReader::read_array(int depth) {
  if (depth >= kMaxArrayDepth)
    return problem(fmt::format("arrays nested deeper than {} levels", kMaxArrayDepth));
  const auto element = read_type();
  if (!element) return problem(element.error());
  const auto count = reader_.read<uint64_t>();
  if (!count) return problem("the file ends before an array's length");
  if (*count > reader_.remaining() / least_bytes(*element))
    return problem(
        fmt::format("an array of {} {} values does not fit the {} bytes left in the file", *count,
                    name_of(*element), reader_.remaining()));
  GgufValue out;
  out.type = GgufType::kArray;
  out.element_type = *element;
  out.count = *count;
  if (*element == GgufType::kString) {
    for (uint64_t i = 0; i < *count; ++i) {
      const auto text = read_string();
      if (!text) return problem(fmt::format("element {}: {}", i, text.error()));
      out.strings.push_back(*text);
    }
  } else if (*element == GgufType::kArray) {
    for (uint64_t i = 0; i < *count; ++i) {
      auto inner = read_array(depth + 1);
      if (!inner) return problem(fmt::format("element {}: {}", i, inner.error()));
      out.arrays.push_back(std::move(*inner));
    }
  } else {
    out.bytes = *reader_.read_bytes(*count * scalar_bytes(*element));
  }
  return out;
}

}  // namespace spear
