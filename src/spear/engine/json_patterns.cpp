#include "spear/engine/json_patterns.h"

#include <algorithm>
#include <limits>
#include <string>

#include <fmt/format.h>

namespace spear::json {
namespace {

constexpr int32_t kMostIndent = 16;

PatternPointer one(char c) {
  const auto point = static_cast<uint32_t>(static_cast<unsigned char>(c));
  return character({{point, point}});
}

PatternPointer digit(char first = '0', char last = '9') {
  return character({{static_cast<uint32_t>(first), static_cast<uint32_t>(last)}});
}

PatternPointer digits(int32_t least, int32_t most) {
  return repeat(digit(), least, most);
}

// Characters that stand for themselves in a string.
std::vector<CodeRange> plain() {
  return inverted(merged({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
}

PatternPointer escaped() {
  const PatternPointer hex = character({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
  const PatternPointer simple = character({{'"', '"'},
                                           {'\\', '\\'},
                                           {'/', '/'},
                                           {'b', 'b'},
                                           {'f', 'f'},
                                           {'n', 'n'},
                                           {'r', 'r'},
                                           {'t', 't'}});
  // \u without surrogates, which would have to come in pairs.
  const PatternPointer high = choice(
      {character({{'0', '9'}, {'a', 'c'}, {'A', 'C'}}), character({{'e', 'f'}, {'E', 'F'}})});
  const PatternPointer unit =
      choice({sequence({high, hex, hex, hex}),
              sequence({character({{'d', 'd'}, {'D', 'D'}}), digit('0', '7'), hex, hex})});
  return sequence({one('\\'), choice({simple, sequence({one('u'), unit})})});
}

// A character inside a string, as JSON writes it.
PatternPointer written(uint32_t point) {
  switch (point) {
    case '"':
      return literal("\\\"");
    case '\\':
      return literal("\\\\");
    case '\b':
      return literal("\\b");
    case '\f':
      return literal("\\f");
    case '\n':
      return literal("\\n");
    case '\r':
      return literal("\\r");
    case '\t':
      return literal("\\t");
    default:
      return literal(fmt::format("\\u{:04x}", point));
  }
}

PatternPointer write_characters(const std::vector<CodeRange>& ranges) {
  std::vector<CodeRange> itself;
  std::vector<PatternPointer> parts;
  const std::vector<CodeRange> allowed = plain();
  for (const CodeRange& range : ranges) {
    for (const CodeRange& a : allowed)
      if (const uint32_t first = std::max(range.first, a.first),
          last = std::min(range.last, a.last);
          first <= last)
        itself.push_back({first, last});
    for (const uint32_t special : {uint32_t{'"'}, uint32_t{'\\'}})
      if (special >= range.first && special <= range.last) parts.push_back(written(special));
    for (uint32_t c = range.first; c <= std::min(range.last, uint32_t{0x1F}); ++c)
      parts.push_back(written(c));
  }
  if (!itself.empty()) parts.push_back(character(std::move(itself)));
  return parts.empty() ? nothing() : choice(std::move(parts));
}

PatternPointer write(const PatternPointer& content) {
  if (content->kind == Pattern::Kind::kCharacter) return write_characters(content->ranges);
  Pattern copy = *content;
  for (PatternPointer& part : copy.parts) part = write(part);
  return std::make_shared<const Pattern>(std::move(copy));
}

// Texts of as many digits as both bounds have, between them.
PatternPointer same_length(const std::string& low, const std::string& high) {
  if (low.empty()) return sequence({});
  const std::string low_rest = low.substr(1), high_rest = high.substr(1);
  if (low[0] == high[0]) return sequence({one(low[0]), same_length(low_rest, high_rest)});
  const auto size = static_cast<int32_t>(low_rest.size());
  std::vector<PatternPointer> parts = {
      sequence({one(low[0]), same_length(low_rest, std::string(low_rest.size(), '9'))}),
      sequence({one(high[0]), same_length(std::string(high_rest.size(), '0'), high_rest)})};
  if (low[0] + 1 < high[0])
    parts.push_back(sequence({digit(static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)),
                              digits(size, size)}));
  return choice(std::move(parts));
}

// From `low` to `high`, neither negative.
PatternPointer natural_between(uint64_t low, uint64_t high) {
  std::vector<PatternPointer> parts;
  for (uint64_t first = low; first <= high;) {
    const std::string begin = std::to_string(first);
    const std::string nines(begin.size(), '9');
    const uint64_t longest = begin.size() >= 19 ? high : std::stoull(nines);
    const uint64_t last = std::min(high, longest);
    parts.push_back(same_length(begin, std::to_string(last)));
    if (last == high) break;
    first = last + 1;
  }
  return choice(std::move(parts));
}

PatternPointer natural_from(uint64_t low) {
  const std::string text = std::to_string(low);
  const std::string nines(text.size(), '9');
  // As many digits as the bound has, or more.
  return choice({same_length(text, nines),
                 sequence({digit('1', '9'),
                           digits(static_cast<int32_t>(text.size()), Pattern::kUnbounded)})});
}

uint64_t magnitude(int64_t value) {
  return value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
}

}  // namespace

PatternPointer space() {
  return optional(choice({one(' '), sequence({one('\n'), repeat(one(' '), 0, kMostIndent)})}));
}

PatternPointer null() {
  return literal("null");
}

PatternPointer boolean() {
  return choice({literal("true"), literal("false")});
}

PatternPointer integer() {
  return sequence(
      {optional(one('-')), choice({one('0'), sequence({digit('1', '9'), digits(0, 18)})})});
}

PatternPointer number() {
  const PatternPointer fraction = sequence({one('.'), digits(1, 18)});
  const PatternPointer exponent =
      sequence({character({{'e', 'e'}, {'E', 'E'}}), optional(character({{'+', '+'}, {'-', '-'}})),
                digits(1, 2)});
  return sequence({integer(), optional(fraction), optional(exponent)});
}

PatternPointer string(int32_t least, int32_t most) {
  const PatternPointer any = choice({character(plain()), escaped()});
  return sequence({one('"'), repeat(any, least, most), one('"')});
}

PatternPointer quoted(const PatternPointer& content) {
  return sequence({one('"'), write(content), one('"')});
}

PatternPointer quoted_literal(std::string_view text) {
  return quoted(literal(text));
}

PatternPointer integer_between(std::optional<int64_t> low, std::optional<int64_t> high) {
  if (!low && !high) return integer();
  std::vector<PatternPointer> parts;
  if (!high || *high >= 0) {  // what is not negative
    const uint64_t from = low && *low > 0 ? magnitude(*low) : 0;
    parts.push_back(high ? natural_between(from, magnitude(*high)) : natural_from(from));
  }
  if (!low || *low < 0) {
    const uint64_t from = high && *high < 0 ? magnitude(*high) : 1;
    parts.push_back(
        sequence({one('-'), low ? natural_between(from, magnitude(*low)) : natural_from(from)}));
  }
  return choice(std::move(parts));
}

PatternPointer array(const PatternPointer& item, int32_t least, int32_t most) {
  const PatternPointer comma = sequence({space(), one(','), space()});
  const PatternPointer open = sequence({one('['), space()});
  const PatternPointer close = sequence({space(), one(']')});
  const PatternPointer empty = sequence({one('['), space(), one(']')});
  if (most == 0) return empty;
  PatternPointer items;
  if (most == Pattern::kUnbounded && least <= 1) {
    items = separated(item, comma);
  } else {
    const int32_t more = most == Pattern::kUnbounded ? most : most - 1;
    items = sequence({item, repeat(sequence({comma, item}), std::max(least - 1, 0), more)});
  }
  const PatternPointer filled = sequence({open, items, close});
  return least == 0 ? choice({empty, filled}) : filled;
}

PatternPointer object_of(const PatternPointer& value) {
  const PatternPointer member = sequence({string(), space(), one(':'), space(), value});
  const PatternPointer comma = sequence({space(), one(','), space()});
  return sequence(
      {one('{'), space(), optional(sequence({separated(member, comma), space()})), one('}')});
}

PatternPointer value(int depth) {
  std::vector<PatternPointer> parts = {null(), boolean(), number(), string()};
  if (depth > 0) {
    const PatternPointer inner = value(depth - 1);
    parts.push_back(array(inner, 0, Pattern::kUnbounded));
    parts.push_back(object_of(inner));
  }
  return choice(std::move(parts));
}

}  // namespace spear::json
