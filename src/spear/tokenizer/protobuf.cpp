#include "spear/tokenizer/protobuf.h"

#include <bit>

#include <fmt/format.h>

#include "spear/base/error.h"

namespace spear {
namespace {

constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = (value << 8) | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

float ProtobufReader::Field::real() const {
  return std::bit_cast<float>(static_cast<uint32_t>(value));
}

bool ProtobufReader::next(Field& field) {
  if (rest_.empty()) return false;
  const uint64_t tag = varint();
  if (tag == 0 || tag > UINT32_MAX) bad(fmt::format("has the field tag {}", tag));
  field = {};
  field.number = static_cast<uint32_t>(tag >> 3);
  field.wire_type = static_cast<uint32_t>(tag & 7);
  switch (field.wire_type) {
    case kVarint:
      field.value = varint();
      break;
    case kFixed64:
      field.value = little_endian(take(8));
      break;
    case kBytes:
      field.bytes = take(varint());
      break;
    case kFixed32:
      field.value = little_endian(take(4));
      break;
    default:
      bad(fmt::format("has a field of wire type {}", field.wire_type));
  }
  return true;
}

void ProtobufReader::require(const Field& field, uint32_t wire_type) const {
  if (field.wire_type != wire_type)
    bad(fmt::format("has field {} with wire type {}, expected {}", field.number, field.wire_type,
                    wire_type));
}

uint64_t ProtobufReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    const auto byte = static_cast<uint8_t>(take(1).front());
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  bad("has a number of more than 10 bytes");
}

std::string_view ProtobufReader::take(uint64_t count) {
  if (count > rest_.size())
    bad(fmt::format("announces {} bytes, {} are left", count, rest_.size()));
  const std::string_view taken = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return taken;
}

void ProtobufReader::bad(std::string_view problem) const {
  throw Failure(ErrorCode::kBadFile,
                fmt::format("{}: not a SentencePiece model: the {} {} (byte {} of {})", source_,
                            what_, problem, size_ - rest_.size(), size_));
}

}  // namespace spear
