#include "spear/tokenizer/byte_alphabet.h"

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

// Bytes that are visible in Latin-1 stand for themselves; the other 68 follow each other from
// U+0100 on.
bool stands_for_itself(uint32_t value) {
  return (value >= 0x21 && value <= 0x7e) || (value >= 0xa1 && value <= 0xac) ||
         (value >= 0xae && value <= 0xff);
}

int letter_to_byte(uint32_t point) {
  if (point < 0x100) return stands_for_itself(point) ? static_cast<int>(point) : -1;
  if (point <= 0x120) return static_cast<int>(point - 0x100);         // 00 … 20
  if (point <= 0x142) return static_cast<int>(point - 0x121 + 0x7f);  // 7f … a0
  return point == 0x143 ? 0xad : -1;
}

}  // namespace

uint32_t byte_to_letter(uint8_t byte) {
  if (stands_for_itself(byte)) return byte;
  if (byte <= 0x20) return 0x100U + byte;
  if (byte <= 0xa0) return 0x121U + byte - 0x7f;
  return 0x143;
}

std::optional<std::string> bytes_of_piece(std::string_view piece) {
  std::string bytes;
  bytes.reserve(piece.size());
  while (!piece.empty()) {
    const size_t length = valid_char_length(piece);
    const int byte = length == 0 ? -1 : letter_to_byte(code_point(piece, length));
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    piece.remove_prefix(length);
  }
  return bytes;
}

std::string piece_of_bytes(std::string_view bytes) {
  std::string piece;
  for (const char byte : bytes) append_utf8(piece, byte_to_letter(static_cast<uint8_t>(byte)));
  return piece;
}

}  // namespace spear
