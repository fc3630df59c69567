#include "spear/tokenizer/utf8.h"

#include <utf8proc.h>

namespace spear {
namespace {

uint8_t byte_at(std::string_view text, size_t i) {
  return static_cast<uint8_t>(text[i]);
}

bool is_continuation(uint8_t byte) {
  return (byte & 0xc0) == 0x80;
}

// The second byte decides on overlong forms, surrogates and the upper limit (Unicode 3.9, table
// 3-7).
bool second_byte_fits(uint8_t first, uint8_t second) {
  switch (first) {
    case 0xe0:
      return second >= 0xa0 && second <= 0xbf;
    case 0xed:
      return second >= 0x80 && second <= 0x9f;
    case 0xf0:
      return second >= 0x90 && second <= 0xbf;
    case 0xf4:
      return second >= 0x80 && second <= 0x8f;
    default:
      return is_continuation(second);
  }
}

size_t length_by_first_byte(uint8_t first) {
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return 2;
  if (first < 0xf0) return 3;
  return first < 0xf5 ? 4 : 0;
}

}  // namespace

size_t expected_char_length(std::string_view text) {
  if (text.empty()) return 0;
  const size_t length = length_by_first_byte(byte_at(text, 0));
  if (length == 0) return 0;
  if (length > 1 && text.size() > 1 && !second_byte_fits(byte_at(text, 0), byte_at(text, 1)))
    return 0;
  for (size_t i = 2; i < length && i < text.size(); ++i)
    if (!is_continuation(byte_at(text, i))) return 0;
  return length;
}

size_t valid_char_length(std::string_view text) {
  const size_t length = expected_char_length(text);
  return length <= text.size() ? length : 0;
}

uint32_t code_point(std::string_view text, size_t length) {
  const uint32_t first = byte_at(text, 0);
  if (length == 1) return first;
  uint32_t point = first & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) point = (point << 6) | (byte_at(text, i) & 0x3fU);
  return point;
}

void append_utf8(std::string& out, uint32_t point) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xc0 | (point >> 6));
  } else if (point < 0x10000) {
    put(0xe0 | (point >> 12));
    put(0x80 | ((point >> 6) & 0x3f));
  } else {
    put(0xf0 | (point >> 18));
    put(0x80 | ((point >> 12) & 0x3f));
    put(0x80 | ((point >> 6) & 0x3f));
  }
  put(0x80 | (point & 0x3f));
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = valid_char_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

bool is_white_space(uint32_t point) {
  return (point >= 0x09 && point <= 0x0d) || point == 0x20 || point == 0x85 || point == 0xa0 ||
         point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
         point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

bool is_word_character(uint32_t point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return point == 0x200c || point == 0x200d;
  }
}

}  // namespace spear
