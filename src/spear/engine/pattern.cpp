#include "spear/engine/pattern.h"

#include <algorithm>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr uint32_t kLastCodePoint = 0x10FFFF;

PatternPointer make(Pattern pattern) {
  return std::make_shared<const Pattern>(std::move(pattern));
}

}  // namespace

PatternPointer nothing() {
  return make({.kind = Pattern::Kind::kNothing});
}

PatternPointer character(std::vector<CodeRange> ranges) {
  return make({.kind = Pattern::Kind::kCharacter, .ranges = merged(std::move(ranges))});
}

PatternPointer literal(std::string_view text) {
  std::vector<PatternPointer> parts;
  while (!text.empty()) {
    const size_t length = std::max<size_t>(valid_char_length(text), 1);
    const uint32_t point = code_point(text, length);
    parts.push_back(character({{point, point}}));
    text.remove_prefix(length);
  }
  return sequence(std::move(parts));
}

PatternPointer sequence(std::vector<PatternPointer> parts) {
  return make({.kind = Pattern::Kind::kSequence, .parts = std::move(parts)});
}

PatternPointer choice(std::vector<PatternPointer> parts) {
  return make({.kind = Pattern::Kind::kChoice, .parts = std::move(parts)});
}

PatternPointer repeat(PatternPointer part, int32_t least, int32_t most) {
  return make(
      {.kind = Pattern::Kind::kRepeat, .parts = {std::move(part)}, .least = least, .most = most});
}

PatternPointer optional(PatternPointer part) {
  return repeat(std::move(part), 0, 1);
}

PatternPointer separated(PatternPointer part, PatternPointer separator) {
  return make(
      {.kind = Pattern::Kind::kSeparated, .parts = {std::move(part), std::move(separator)}});
}

std::vector<CodeRange> merged(std::vector<CodeRange> ranges) {
  std::ranges::sort(ranges, {}, &CodeRange::first);
  std::vector<CodeRange> out;
  for (const CodeRange& range : ranges) {
    if (!out.empty() && range.first <= out.back().last + 1) {
      out.back().last = std::max(out.back().last, range.last);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

std::vector<CodeRange> inverted(const std::vector<CodeRange>& ranges) {
  std::vector<CodeRange> all = ranges;
  all.push_back({0xD800, 0xDFFF});
  std::vector<CodeRange> out;
  uint32_t next = 0;
  for (const CodeRange& range : merged(std::move(all))) {
    if (range.first > next) out.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) out.push_back({next, kLastCodePoint});
  return out;
}

}  // namespace spear
