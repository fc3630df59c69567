#include "spear/tokenizer/charsmap.h"

#include <cstring>

#include <fmt/format.h>
#include <utf8proc.h>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

// One unit of a Darts double array: label in the low byte, a leaf flag, and the distance to the
// children.
constexpr uint32_t kLabelMask = (uint32_t{1} << 31) | 0xff;
uint32_t label(uint32_t unit) {
  return unit & kLabelMask;
}
bool has_leaf(uint32_t unit) {
  return ((unit >> 8) & 1) != 0;
}
uint32_t leaf_value(uint32_t unit) {
  return unit & ~(uint32_t{1} << 31);
}
uint32_t offset(uint32_t unit) {
  return (unit >> 10) << ((unit & (uint32_t{1} << 9)) >> 6);
}

constexpr size_t kLongGrapheme = 6;  // bytes; from here on `tokenizers` looks at characters only

}  // namespace

Result<Charsmap> Charsmap::parse(std::string_view blob, std::string_view source) {
  uint32_t trie_bytes = 0;
  if (blob.size() >= sizeof(trie_bytes)) std::memcpy(&trie_bytes, blob.data(), sizeof(trie_bytes));
  if (blob.size() < sizeof(trie_bytes) || trie_bytes > blob.size() - sizeof(trie_bytes) ||
      trie_bytes % sizeof(uint32_t) != 0 || trie_bytes == 0)
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: the precompiled charsmap of {} bytes announces a trie of {} bytes",
                            source, blob.size(), trie_bytes));
  Charsmap map;
  map.units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(map.units_.data(), blob.data() + sizeof(trie_bytes), trie_bytes);
  map.replacements_ = blob.substr(sizeof(trie_bytes) + trie_bytes);
  if (map.replacements_.empty() || map.replacements_.back() != '\0')
    return fail(
        ErrorCode::kBadFile,
        fmt::format("{}: the replacements of the precompiled charsmap do not end in a NUL byte",
                    source));
  return map;
}

Charsmap::Match Charsmap::search(std::string_view text, bool longest) const {
  Match best;
  size_t node = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (node >= units_.size()) break;
    if (!has_leaf(unit)) continue;
    const uint32_t at = leaf_value(units_[node]);
    if (at >= replacements_.size()) continue;
    best = {i + 1, std::string_view(replacements_.data() + at)};  // parse() saw the last NUL
    if (!longest) break;
  }
  return best;
}

void Charsmap::append_grapheme(std::string& out, std::string_view grapheme) const {
  if (grapheme.size() < kLongGrapheme) {
    if (const Match match = shortest(grapheme); match.length > 0) {
      out.append(match.replacement);
      return;
    }
  }
  while (!grapheme.empty()) {
    const size_t length = std::max<size_t>(1, valid_char_length(grapheme));
    const std::string_view character = grapheme.substr(0, length);
    const Match match = shortest(character);
    out.append(match.length > 0 ? match.replacement : character);
    grapheme.remove_prefix(length);
  }
}

std::string Charsmap::apply_by_grapheme(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;
  utf8proc_int32_t state = 0;
  utf8proc_int32_t before = -1;
  for (size_t at = 0; at < text.size();) {
    const size_t length = valid_char_length(text.substr(at));
    const auto point =
        length == 0 ? -1 : static_cast<utf8proc_int32_t>(code_point(text.substr(at), length));
    if (at > begin &&
        (point < 0 || before < 0 || utf8proc_grapheme_break_stateful(before, point, &state))) {
      append_grapheme(out, text.substr(begin, at - begin));
      begin = at;
    }
    before = point;
    at += length == 0 ? 1 : length;
  }
  if (begin < text.size()) append_grapheme(out, text.substr(begin));
  return out;
}

}  // namespace spear
