#include "spear/tokenizer/compose.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include <utf8proc.h>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

struct Range {
  uint32_t first;
  uint32_t last;
};

// Characters whose combining class or composition is younger than the tables (Unicode 9) of the
// `tokenizers` package, up to Unicode 16. Vocabularies were trained without them, so here too they
// stand apart: no mark is ordered across one, nothing composes with one.
constexpr std::array kYoung = {
    Range{0x7fd, 0x7fd},     Range{0x897, 0x89f},     Range{0x8ca, 0x8d3},
    Range{0x9fe, 0x9fe},     Range{0xc3c, 0xc3c},     Range{0xd3b, 0xd3c},
    Range{0xeba, 0xeba},     Range{0x1715, 0x1715},   Range{0x1abf, 0x1ace},
    Range{0x1df6, 0x1dfa},   Range{0xa82c, 0xa82c},   Range{0x105c9, 0x105c9},
    Range{0x105e4, 0x105e4}, Range{0x10d24, 0x10d27}, Range{0x10d69, 0x10d6d},
    Range{0x10eab, 0x10eac}, Range{0x10efc, 0x10eff}, Range{0x10f46, 0x10f50},
    Range{0x10f82, 0x10f85}, Range{0x11070, 0x11070}, Range{0x1133b, 0x1133b},
    Range{0x11383, 0x113e2}, Range{0x1145e, 0x1145e}, Range{0x11839, 0x1183a},
    Range{0x11930, 0x11930}, Range{0x11935, 0x11935}, Range{0x11938, 0x11938},
    Range{0x1193d, 0x1193e}, Range{0x11943, 0x11943}, Range{0x119e0, 0x119e0},
    Range{0x11a34, 0x11a34}, Range{0x11a47, 0x11a47}, Range{0x11a99, 0x11a99},
    Range{0x11d42, 0x11d42}, Range{0x11d44, 0x11d45}, Range{0x11d97, 0x11d97},
    Range{0x11f41, 0x11f42}, Range{0x1611e, 0x1612f}, Range{0x16d63, 0x16d6a},
    Range{0x16ff0, 0x16ff1}, Range{0x1e08f, 0x1e08f}, Range{0x1e130, 0x1e136},
    Range{0x1e2ae, 0x1e2ae}, Range{0x1e2ec, 0x1e2ef}, Range{0x1e4ec, 0x1e4ef},
    Range{0x1e5ee, 0x1e5ef}};

bool is_young(uint32_t point) {
  const auto* after =
      std::upper_bound(kYoung.begin(), kYoung.end(), point,
                       [](uint32_t p, const Range& range) { return p < range.first; });
  return after != kYoung.begin() && point <= (after - 1)->last;
}

int combining_class(utf8proc_int32_t point) {
  return utf8proc_get_property(point)->combining_class;
}

utf8proc_option_t options_of(UnicodeForm form) {
  const bool compat = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                        (compat ? UTF8PROC_COMPAT : 0));
}

// Sorting each run of marks at once keeps a megabyte of them from taking quadratic time, as
// utf8proc's own exchange of neighbours would.
void order_marks(std::vector<utf8proc_int32_t>& points) {
  for (auto begin = points.begin(); begin != points.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, points.end(),
                                  [](utf8proc_int32_t p) { return combining_class(p) == 0; });
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
}

// Writes what has been gathered, in normal form, and forgets it.
void flush(std::vector<utf8proc_int32_t>& points, UnicodeForm form, std::string& out) {
  if (points.empty()) return;
  order_marks(points);
  auto count = static_cast<utf8proc_ssize_t>(points.size());
  if (form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc)
    count = utf8proc_normalize_utf32(
        points.data(), count, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(out, static_cast<uint32_t>(points[i]));
  points.clear();
}

void decompose(utf8proc_int32_t point, UnicodeForm form, std::vector<utf8proc_int32_t>& points) {
  std::array<utf8proc_int32_t, 32> parts{};  // the longest decomposition has 18
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(point, parts.data(), parts.size(), options_of(form), &boundary);
  points.insert(points.end(), parts.begin(), parts.begin() + std::max<utf8proc_ssize_t>(count, 0));
}

// Below U+0300 no form but the compatibility ones changes anything that NFC would not put back.
bool is_surely_composed(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0xcc; });
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

std::string unicode_form(std::string_view text, UnicodeForm form) {
  if (is_ascii(text) || (form == UnicodeForm::kNfc && is_surely_composed(text)))
    return std::string(text);
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  std::vector<utf8proc_int32_t> points;
  for (size_t at = 0; at < text.size();) {
    const size_t length = valid_char_length(text.substr(at));
    const uint32_t point = length == 0 ? 0 : code_point(text.substr(at), length);
    if (length == 0 || is_young(point)) {
      flush(points, form, out);
      out.append(text.substr(at, std::max<size_t>(1, length)));
    } else {
      // A starter below U+0300 never joins what stands before it: a safe place to empty the buffer.
      if (point < 0x300 && points.size() > 256) flush(points, form, out);
      decompose(static_cast<utf8proc_int32_t>(point), form, points);
    }
    at += std::max<size_t>(1, length);
  }
  flush(points, form, out);
  return out;
}

}  // namespace spear
