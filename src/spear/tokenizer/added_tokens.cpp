#include "spear/tokenizer/added_tokens.h"

#include <algorithm>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

// Length of the character that ends `text`; 1 when it is not valid.
size_t last_char_length(std::string_view text) {
  for (size_t length = 1; length <= 4 && length <= text.size(); ++length)
    if (valid_char_length(text.substr(text.size() - length)) == length) return length;
  return 1;
}

bool ends_with(std::string_view text, bool (*is)(uint32_t)) {
  if (text.empty()) return false;
  const std::string_view last = text.substr(text.size() - last_char_length(text));
  return valid_char_length(last) == last.size() && is(code_point(last, last.size()));
}

bool starts_with(std::string_view text, bool (*is)(uint32_t)) {
  const size_t length = valid_char_length(text);
  return length > 0 && is(code_point(text, length));
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, bool normalized) {
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized) continue;
    by_content_.insert(token.content, static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(token);
  }
}

void AddedTokens::split(std::string_view text, bool with_special,
                        std::vector<TextPart>& parts) const {
  size_t kept = 0;  // everything before is in `parts`
  for (size_t at = 0; at < text.size() && !tokens_.empty();) {
    Trie::Match match;
    if (by_content_.starts_with(static_cast<uint8_t>(text[at])))
      match = by_content_.longest(text.substr(at));
    if (match.length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.value];
    size_t begin = at;
    size_t end = at += match.length;  // also where a refused match is passed over
    if (token.special && !with_special) continue;
    if (token.single_word && (ends_with(text.substr(0, begin), is_word_character) ||
                              starts_with(text.substr(end), is_word_character)))
      continue;
    while (token.left_strip && begin > kept && ends_with(text.substr(0, begin), is_white_space))
      begin -= last_char_length(text.substr(0, begin));
    while (token.right_strip && starts_with(text.substr(end), is_white_space))
      end += valid_char_length(text.substr(end));
    begin = std::max(begin, kept);
    if (begin > kept) parts.push_back({text.substr(kept, begin - kept), -1});
    parts.push_back({text.substr(begin, end - begin), token.id});
    kept = at = end;
  }
  if (kept < text.size()) parts.push_back({text.substr(kept), -1});
}

}  // namespace spear
