// Python's string operations that templates use.
#include <algorithm>

#include <utf8proc.h>

#include "spear/tokenizer/jinja_builtins.h"
#include "spear/tokenizer/utf8.h"

namespace spear::jinja {
namespace {

bool is_python_space(std::string_view character) {
  const size_t length = valid_char_length(character);
  if (length == 0) return false;
  const uint32_t point = code_point(character, length);
  return is_white_space(point) || (point >= 0x1c && point <= 0x1f);
}

// Which characters strip() takes away.
class Stripped {
 public:
  explicit Stripped(const std::string* chars) : all_spaces_(chars == nullptr) {
    if (chars != nullptr) set_ = characters(*chars);
  }
  bool operator()(std::string_view character) const {
    return all_spaces_ ? is_python_space(character)
                       : std::find(set_.begin(), set_.end(), character) != set_.end();
  }

 private:
  bool all_spaces_;
  std::vector<std::string_view> set_;
};

enum class Case { kUpper, kLower };

void append_cased(std::string& out, std::string_view character, Case to) {
  const size_t length = valid_char_length(character);
  if (length == 0) {
    out.append(character);
    return;
  }
  const auto point = static_cast<utf8proc_int32_t>(code_point(character, length));
  if (point == 0xdf &&
      to == Case::kUpper) {  // the one capital of two letters that texts really have
    out.append("SS");
    return;
  }
  append_utf8(out, static_cast<uint32_t>(to == Case::kUpper ? utf8proc_toupper(point)
                                                            : utf8proc_tolower(point)));
}

std::string cased(std::string_view text, Case to) {
  std::string out;
  out.reserve(text.size());
  for (const std::string_view character : characters(text)) append_cased(out, character, to);
  return out;
}

size_t last_length(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80)
    --begin;
  return valid_char_length(text.substr(begin)) == text.size() - begin ? text.size() - begin : 1;
}

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> list;
  list.reserve(text.size());
  while (!text.empty()) {
    const size_t length = std::max<size_t>(1, valid_char_length(text));
    list.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return list;
}

std::string upper(std::string_view text) {
  return cased(text, Case::kUpper);
}
std::string lower(std::string_view text) {
  return cased(text, Case::kLower);
}

std::string capitalize(std::string_view text) {
  std::string out;
  for (const std::string_view character : characters(text))
    append_cased(out, character, out.empty() ? Case::kUpper : Case::kLower);
  return out;
}

// Jinja's filter: a word begins after white space and after - ( { [ <.
std::string title(std::string_view text) {
  std::string out;
  bool begins = true;
  for (const std::string_view character : characters(text)) {
    const bool separates = is_python_space(character) ||
                           std::string_view("-({[<").find(character) != std::string_view::npos;
    append_cased(out, character, begins && !separates ? Case::kUpper : Case::kLower);
    begins = separates;
  }
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t count, Budget& budget) {
  std::string out;
  size_t at = 0;
  const auto grow = [&](std::string_view part) {
    budget.append(out.size(), part.size());
    out.append(part);
  };
  if (from.empty()) {  // between all characters
    for (const std::string_view character : characters(text)) {
      if (count-- != 0) grow(to);
      grow(character);
    }
    if (count != 0) grow(to);
    return out;
  }
  std::vector<size_t> hits;
  for (size_t hit; count != 0 && (hit = text.find(from, at)) != std::string_view::npos; --count) {
    hits.push_back(hit);
    at = hit + from.size();
  }
  budget.text(text.size() + hits.size() * to.size());
  at = 0;
  for (const size_t hit : hits) {
    out.append(text.substr(at, hit - at)).append(to);
    at = hit + from.size();
  }
  return out.append(text.substr(at));
}

std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right) {
  const Stripped stripped(chars);
  while (left && !text.empty()) {
    const size_t length = std::max<size_t>(1, valid_char_length(text));
    if (!stripped(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    const size_t length = last_length(text);
    if (!stripped(text.substr(text.size() - length))) break;
    text.remove_suffix(length);
  }
  return text;
}

}  // namespace spear::jinja
