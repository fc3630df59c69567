#include "spear/base/printable.h"

#include <cstdint>

namespace spear {
namespace {

// Bytes of the well-formed, printable UTF-8 character at the front of `text`; 0 if there is none.
size_t printable_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7f ? 1 : 0;
  const size_t length = lead >= 0xf0 && lead <= 0xf4  ? 4
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                                                      : 0;
  if (length == 0 || text.size() < length) return 0;
  uint32_t point = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0u) != 0x80u) return 0;
    point = point << 6u | (byte(i) & 0x3fu);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  const bool control = point < 0xa0 || (point >= 0x200b && point <= 0x200f) ||
                       (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
  return overlong || surrogate || control || point > 0x10ffff ? 0 : length;
}

}  // namespace

std::string printable(std::string_view text, size_t limit) {
  std::string out = "\"";
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = printable_length(text.substr(at));
    if (at + (length == 0 ? 1 : length) > limit) break;
    if (length == 0) {
      const auto byte = static_cast<uint8_t>(text[at++]);
      out += "\\x";
      out += "0123456789abcdef"[byte >> 4u];
      out += "0123456789abcdef"[byte & 15u];
      continue;
    }
    if (text[at] == '"' || text[at] == '\\') out += '\\';
    out += text.substr(at, length);
    at += length;
  }
  out += '"';
  return at < text.size() ? out + "..." : out;
}

}  // namespace spear
