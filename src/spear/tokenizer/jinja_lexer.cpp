#include "spear/tokenizer/jinja_lexer.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "spear/tokenizer/utf8.h"

namespace spear::jinja {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 18;

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_name(char c) {
  return is_name_start(c) || is_digit(c);
}

// Jinja reads every kind of line end as one, and drops the last.
std::string with_unix_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(with_unix_lines(source)), rest_(text_) {}

  std::vector<Token> run() {
    while (!rest_.empty()) outside();
    put(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void put(TokenKind kind, std::string text) {
    if (tokens_.size() >= kMaxTokens) template_error(line_, "the template has too many parts");
    tokens_.push_back({kind, std::move(text), line_});
  }

  // Moves on, counting lines.
  std::string_view take(size_t count) {
    const std::string_view taken = rest_.substr(0, count);
    line_ += static_cast<int>(std::count(taken.begin(), taken.end(), '\n'));
    if (!taken.empty()) line_starting_ = taken.back() == '\n';
    rest_.remove_prefix(taken.size());
    return taken;
  }

  [[nodiscard]] size_t next_tag() const {
    for (size_t at = rest_.find('{'); at != std::string_view::npos; at = rest_.find('{', at + 1)) {
      const char after = at + 1 < rest_.size() ? rest_[at + 1] : '\0';
      if (after == '%' || after == '{' || after == '#') return at;
    }
    return std::string_view::npos;
  }

  // Text up to the next tag, then the tag. The tag's sign decides on the white space before it.
  void outside() {
    const size_t tag = next_tag();
    const bool at_line_start = line_starting_;
    std::string text(rest_.substr(0, tag));
    if (tag == std::string_view::npos) {
      take(rest_.size());
      return put(TokenKind::kText, std::move(text));
    }
    const char kind = rest_[tag + 1];
    const char sign = tag + 2 < rest_.size() ? rest_[tag + 2] : '\0';
    if (sign == '-') {
      while (!text.empty() && is_space(text.back())) text.pop_back();
    } else if (sign != '+' && kind != '{') {
      const size_t line_begin = text.rfind('\n') + 1;
      const bool line = line_begin > 0 || at_line_start;
      if (line &&
          std::all_of(text.begin() + static_cast<ptrdiff_t>(line_begin), text.end(), is_space))
        text.resize(line_begin);
    }
    if (!text.empty()) put(TokenKind::kText, std::move(text));
    take(tag + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') return comment();
    put(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    if (kind == '%' && raw_begins()) return raw();
    inside(kind == '%' ? '%' : '}');
  }

  // After the end of a tag: a minus eats all white space, a block's end eats one line end.
  void after_tag(bool minus, bool plus, bool block) {
    if (minus) {
      size_t count = 0;
      while (count < rest_.size() && is_space(rest_[count])) ++count;
      take(count);
    } else if (block && !plus && rest_.starts_with('\n')) {
      take(1);
    }
  }

  void comment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) template_error(line_, "a comment {# without its #}");
    const char sign = end > 0 ? rest_[end - 1] : '\0';
    take(end + 2);
    after_tag(sign == '-', sign == '+', true);
  }

  [[nodiscard]] bool raw_begins() const {
    size_t at = rest_.find_first_not_of(" \t\n");
    if (at == std::string_view::npos || rest_.substr(at, 3) != "raw") return false;
    at = rest_.find_first_not_of(" \t\n", at + 3);
    return at != std::string_view::npos &&
           (rest_.substr(at, 2) == "%}" || rest_.substr(at, 3) == "-%}" ||
            rest_.substr(at, 3) == "+%}");
  }

  // Everything up to {% endraw %} is text.
  void raw() {
    tokens_.pop_back();  // the block's begin
    const size_t open = rest_.find("%}");
    const char open_sign = rest_[open - 1];
    take(open + 2);
    after_tag(open_sign == '-', open_sign == '+', true);
    for (size_t at = rest_.find("{%"); at != std::string_view::npos;
         at = rest_.find("{%", at + 2)) {
      size_t name = at + 2;
      const char sign = name < rest_.size() ? rest_[name] : '\0';
      if (sign == '-' || sign == '+') ++name;
      name = rest_.find_first_not_of(" \t\n", name);
      if (name == std::string_view::npos || rest_.substr(name, 6) != "endraw") continue;
      const size_t end = rest_.find("%}", name);
      if (end == std::string_view::npos) break;
      std::string text(rest_.substr(0, at));
      while (sign == '-' && !text.empty() && is_space(text.back())) text.pop_back();
      const char end_sign = rest_[end - 1];
      if (!text.empty()) put(TokenKind::kText, std::move(text));
      take(end + 2);
      return after_tag(end_sign == '-', end_sign == '+', true);
    }
    template_error(line_, "{% raw %} without its {% endraw %}");
  }

  // Tokens up to the tag's end. A '}' that closes a '{' of the expression does not end it.
  void inside(char closer) {
    const std::string_view end = closer == '%' ? "%}" : "}}";
    int braces = 0;
    for (;;) {
      size_t spaces = 0;
      while (spaces < rest_.size() && is_space(rest_[spaces])) ++spaces;
      take(spaces);
      if (rest_.empty()) template_error(line_, "a tag without its end");
      const bool signed_end = (rest_[0] == '-' || rest_[0] == '+') && rest_.substr(1, 2) == end;
      if (braces == 0 && (signed_end || rest_.starts_with(end))) {
        const char sign = signed_end ? rest_[0] : '\0';
        put(closer == '%' ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
        take(signed_end ? 3 : 2);
        return after_tag(sign == '-', sign == '+', closer == '%');
      }
      token(braces);
    }
  }

  void token(int& braces) {
    const char c = rest_[0];
    if (c == '\'' || c == '"') return string(c);
    if (is_digit(c)) return number();
    if (is_name_start(c)) {
      size_t length = 1;
      while (length < rest_.size() && is_name(rest_[length])) ++length;
      return put(TokenKind::kName, std::string(take(length)));
    }
    static constexpr std::array<std::string_view, 6> kDouble = {"==", "!=", "<=", ">=", "//", "**"};
    for (const std::string_view text : kDouble)
      if (rest_.starts_with(text)) return put(TokenKind::kOperator, std::string(take(2)));
    if (std::string_view("+-*/%~<>=()[]{}.,:|").find(c) == std::string_view::npos)
      template_error(line_, fmt::format("the character '{}' does not belong into a tag",
                                        c > ' ' && c < 0x7f ? std::string(1, c) : "\\x?"));
    if (c == '{') ++braces;
    if (c == '}') --braces;
    put(TokenKind::kOperator, std::string(take(1)));
  }

  void number() {
    size_t length = 0;
    const auto digits = [&] {
      while (length < rest_.size() && (is_digit(rest_[length]) || rest_[length] == '_')) ++length;
    };
    digits();
    bool real = false;
    if (length + 1 < rest_.size() && rest_[length] == '.' && is_digit(rest_[length + 1])) {
      real = true;
      ++length;
      digits();
    }
    const size_t mantissa = length;
    if (length < rest_.size() && (rest_[length] == 'e' || rest_[length] == 'E')) {
      ++length;
      if (length < rest_.size() && (rest_[length] == '-' || rest_[length] == '+')) ++length;
      if (length < rest_.size() && is_digit(rest_[length])) {
        real = true;
        digits();
      } else {
        length = mantissa;
      }
    }
    std::string text(take(length));
    std::erase(text, '_');
    put(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
  }

  void string(char quote) {
    const int begin = line_;
    std::string out;
    size_t at = 1;
    for (;; ++at) {
      if (at >= rest_.size()) template_error(begin, "a string without its end");
      if (rest_[at] == quote) break;
      if (rest_[at] == '\\') {
        at = escape(at + 1, out);
      } else {
        out.push_back(rest_[at]);
      }
    }
    put(TokenKind::kString, std::move(out));
    take(at + 1);
  }

  // Python's escapes. Returns the position of the escape's last character.
  size_t escape(size_t at, std::string& out) const {
    if (at >= rest_.size()) template_error(line_, "a string without its end");
    const char c = rest_[at];
    static constexpr std::string_view kNames = "nrtabfv0\\'\"\n";
    static constexpr std::string_view kValues{"\n\r\t\a\b\f\v\0\\'\"", 11};
    if (const size_t named = kNames.find(c); named != std::string_view::npos) {
      if (c != '\n') out.push_back(kValues[named]);
      return at;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t point = 0;
    for (size_t i = 1; i <= digits; ++i) {
      const char digit = at + i < rest_.size() ? rest_[at + i] : '\0';
      const size_t value =
          std::string_view("0123456789abcdef")
              .find(digit >= 'A' && digit <= 'F' ? static_cast<char>(digit + 32) : digit);
      if (digit == '\0' || value == std::string_view::npos)
        template_error(line_, fmt::format("a string with a broken \\{} escape", c));
      point = point * 16 + static_cast<uint32_t>(value);
    }
    if (digits > 0) {
      if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        template_error(
            line_, fmt::format("a string with the escape of {:#x}, which is no character", point));
      append_utf8(out, point);
      return at + digits;
    }
    out.push_back('\\');  // Python keeps an unknown escape as it is
    out.push_back(c);
    return at;
  }

  std::string text_;
  std::string_view rest_;
  std::vector<Token> tokens_;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source) {
  return Lexer(source).run();
}

void template_error(int line, const std::string& what) {
  throw Failure(ErrorCode::kBadFile, fmt::format("chat template, line {}: {}", line, what));
}

void template_unsupported(int line, const std::string& what) {
  throw Failure(
      ErrorCode::kUnsupported,
      fmt::format("chat template uses {} (line {}), which spear does not run", what, line));
}

}  // namespace spear::jinja
