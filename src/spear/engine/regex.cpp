#include "spear/engine/regex.h"

#include <string>

#include <fmt/format.h>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr size_t kMostBytes = 16384;
constexpr int kMostDepth = 64;
constexpr int32_t kMostCount = 1000;

const std::vector<CodeRange> kDigits = {{'0', '9'}};
const std::vector<CodeRange> kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const std::vector<CodeRange> kSpace = {{'\t', '\r'}, {' ', ' '}};

// The parser throws Failure inside; parse_regex() turns it into a Result.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Regex whole() {
    Regex regex;
    if (peek() == '^') {
      ++at_;
      regex.begins = true;
    }
    regex.pattern = alternatives(0);
    if (peek() == '$' && at_ + 1 == text_.size()) {
      ++at_;
      regex.ends = true;
    }
    if (at_ < text_.size()) refuse(peek() == ')' ? "a ) without its (" : "not understood");
    return regex;
  }

 private:
  static constexpr int kEnd = -1;

  [[nodiscard]] int peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? static_cast<uint8_t>(text_[at_ + ahead]) : kEnd;
  }
  [[noreturn]] void refuse(std::string_view what) const {
    throw Failure(ErrorCode::kUsage, fmt::format("regex, byte {}: {}", at_, what));
  }

  PatternPointer alternatives(int depth) {
    if (depth > kMostDepth) refuse(fmt::format("more than {} groups in one another", kMostDepth));
    std::vector<PatternPointer> parts = {pieces(depth)};
    while (peek() == '|') {
      ++at_;
      parts.push_back(pieces(depth));
    }
    return parts.size() == 1 ? parts[0] : choice(std::move(parts));
  }

  PatternPointer pieces(int depth) {
    std::vector<PatternPointer> parts;
    for (;;) {
      const int c = peek();
      if (c == kEnd || c == '|' || c == ')') break;
      if (c == '$' && at_ + 1 == text_.size() && depth == 0) break;
      parts.push_back(repeated(atom(depth)));
    }
    return sequence(std::move(parts));
  }

  PatternPointer atom(int depth) {
    switch (peek()) {
      case '(':
        return group(depth);
      case '[':
        return character(char_class());
      case '.':
        ++at_;
        return character(inverted({{'\n', '\n'}}));
      case '\\':
        return character(escape(false));
      case '^':
      case '$':
        refuse("^ and $ stand at the ends of the whole expression only");
      case '*':
      case '+':
      case '?':
      case '{':
        refuse("nothing to repeat stands before this");
      default: {
        const uint32_t point = next_point();
        return character({{point, point}});
      }
    }
  }

  uint32_t next_point() {
    const std::string_view rest = text_.substr(at_);
    const size_t length = valid_char_length(rest);
    if (length == 0) refuse("valid UTF-8 expected");
    at_ += length;
    return code_point(rest, length);
  }

  PatternPointer group(int depth) {
    ++at_;
    if (peek() == '?') {
      if (peek(1) == ':') {
        at_ += 2;
      } else if (peek(1) == 'P' && peek(2) == '<') {
        skip_name(3);
      } else if (peek(1) == '<' && peek(2) != '=' && peek(2) != '!') {
        skip_name(2);
      } else {
        refuse("look-around, flags and other (?…) groups are not supported");
      }
    }
    PatternPointer inside = alternatives(depth + 1);
    if (peek() != ')') refuse("a ) is missing");
    ++at_;
    return inside;
  }

  void skip_name(size_t ahead) {
    at_ += ahead;
    while (peek() != '>' && peek() != kEnd) ++at_;
    if (peek() == kEnd) refuse("the name of a group has no end");
    ++at_;
  }

  int32_t number() {
    int32_t value = 0;
    if (peek() < '0' || peek() > '9') refuse("a count expected");
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = value * 10 + (peek() - '0');
      if (value > kMostCount) refuse(fmt::format("counts up to {} expected", kMostCount));
    }
    return value;
  }

  PatternPointer repeated(PatternPointer part) {
    for (;;) {
      int32_t least = 0, most = Pattern::kUnbounded;
      switch (peek()) {
        case '*':
          break;
        case '+':
          least = 1;
          break;
        case '?':
          most = 1;
          break;
        case '{':
          ++at_;
          least = number();
          most = least;
          if (peek() == ',') {
            ++at_;
            most = peek() == '}' ? Pattern::kUnbounded : number();
          }
          if (peek() != '}') refuse("a } is missing");
          if (most != Pattern::kUnbounded && most < least) refuse("the counts are turned round");
          break;
        default:
          return part;
      }
      ++at_;
      if (peek() == '+') refuse("possessive repetition is not supported");
      if (peek() == '?') ++at_;
      part = repeat(std::move(part), least, most);
    }
  }

  uint32_t hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const int c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) refuse(fmt::format("{} hexadecimal digits expected", digits));
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    if (value >= 0xD800 && value <= 0xDFFF) refuse("a surrogate is no character");
    return value;
  }

  std::vector<CodeRange> escape(bool in_class) {
    ++at_;
    const int c = peek();
    const auto one = [](uint32_t point) { return std::vector<CodeRange>{{point, point}}; };
    ++at_;
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return inverted(kDigits);
      case 'w':
        return kWord;
      case 'W':
        return inverted(kWord);
      case 's':
        return kSpace;
      case 'S':
        return inverted(kSpace);
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return one(hex(2));
      case 'u':
        return one(hex(4));
      default:
        break;
    }
    if (in_class && c == 'b') return one('\b');
    const bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == kEnd || letter || c >= 0x80) {
      at_ -= 2;
      refuse("this escape is not supported");
    }
    return one(static_cast<uint32_t>(c));
  }

  std::vector<CodeRange> char_class() {
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    std::vector<CodeRange> ranges;
    for (bool first = true; first || peek() != ']'; first = false) {
      if (peek() == kEnd) refuse("a ] is missing");
      if (first && peek() == ']') refuse("an empty class");
      const std::vector<CodeRange> low = class_item();
      if (peek() == '-' && peek(1) != ']' && peek(1) != kEnd) {
        ++at_;
        const std::vector<CodeRange> high = class_item();
        const bool single = low.size() == 1 && high.size() == 1 && low[0].first == low[0].last &&
                            high[0].first == high[0].last;
        if (!single || high[0].first < low[0].first) refuse("a range of characters is expected");
        ranges.push_back({low[0].first, high[0].first});
      } else {
        ranges.insert(ranges.end(), low.begin(), low.end());
      }
    }
    ++at_;
    return negated ? inverted(merged(std::move(ranges))) : ranges;
  }

  std::vector<CodeRange> class_item() {
    if (peek() == '\\') return escape(true);
    if (peek() == '[' && peek(1) == ':') refuse("[:…:] classes are not supported");
    const uint32_t point = next_point();
    return {{point, point}};
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Result<Regex> parse_regex(std::string_view text) {
  if (text.size() > kMostBytes)
    return fail(ErrorCode::kUsage,
                fmt::format("regex: at most {} bytes expected, found {}", kMostBytes, text.size()));
  try {
    return Parser(text).whole();
  } catch (const Failure& failure) {
    return tl::unexpected<Error>(failure.error());
  }
}

}  // namespace spear
