#include "spear/tokenizer/normalize.h"

#include <utility>

#include "spear/tokenizer/compose.h"
#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  for (size_t hit; !from.empty() && (hit = text.find(from, at)) != std::string_view::npos;) {
    out.append(text.substr(at, hit - at)).append(to);
    at = hit + from.size();
  }
  return out.append(text.substr(at));
}

std::string replace_pattern(std::string_view text, const Pattern& pattern, std::string_view to) {
  std::string out;
  size_t at = 0;
  Matcher(pattern, text.size()).find_all(text, [&](size_t begin, size_t end) {
    out.append(text.substr(at, begin - at)).append(to);
    at = end;
  });
  return out.append(text.substr(at));
}

size_t white_space_at_start(std::string_view text) {
  size_t at = 0;
  for (size_t length; (length = valid_char_length(text.substr(at))) > 0; at += length)
    if (!is_white_space(code_point(text.substr(at), length))) break;
  return at;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(white_space_at_start(text));
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
    const std::string_view last = text.substr(begin);
    const size_t length = valid_char_length(last);
    if (length != last.size() || !is_white_space(code_point(last, length))) break;
    text = text.substr(0, begin);
  }
  return text;
}

}  // namespace

Result<Normalizer> Normalizer::build(const std::vector<NormalizerStep>& steps,
                                     const std::vector<std::string>& user_defined,
                                     std::string_view source) {
  Normalizer normalizer;
  for (const NormalizerStep& definition : steps) {
    Step step;
    step.definition = definition;
    if (definition.kind == NormalizerKind::kReplacePattern) {
      Result<Pattern> pattern = Pattern::compile(definition.pattern, source);
      if (!pattern) return tl::unexpected(pattern.error());
      step.pattern.push_back(std::move(*pattern));
    }
    const bool wants_map =
        definition.kind == NormalizerKind::kCharsmap ||
        (definition.kind == NormalizerKind::kSentencePiece && !definition.pattern.empty());
    if (wants_map) {
      Result<Charsmap> map = Charsmap::parse(definition.pattern, source);
      if (!map) return tl::unexpected(map.error());
      step.charsmap.push_back(std::move(*map));
    }
    normalizer.steps_.push_back(std::move(step));
  }
  for (const std::string& piece : user_defined) normalizer.user_defined_.insert(piece, 0);
  return normalizer;
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) out = apply_step(step, std::move(out));
  return out;
}

std::string Normalizer::apply_step(const Step& step, std::string text) const {
  const NormalizerStep& definition = step.definition;
  switch (definition.kind) {
    case NormalizerKind::kNfc:
      return unicode_form(text, UnicodeForm::kNfc);
    case NormalizerKind::kNfd:
      return unicode_form(text, UnicodeForm::kNfd);
    case NormalizerKind::kNfkc:
      return unicode_form(text, UnicodeForm::kNfkc);
    case NormalizerKind::kNfkd:
      return unicode_form(text, UnicodeForm::kNfkd);
    case NormalizerKind::kPrepend:
      if (!text.empty()) text.insert(0, definition.content);
      return text;
    case NormalizerKind::kReplace:
      return replace_all(text, definition.pattern, definition.content);
    case NormalizerKind::kReplacePattern:
      return replace_pattern(text, step.pattern.front(), definition.content);
    case NormalizerKind::kStrip:
      return std::string(strip(text, definition.left, definition.right));
    case NormalizerKind::kCharsmap:
      return step.charsmap.front().apply_by_grapheme(text);
    case NormalizerKind::kSentencePiece:
      return sentencepiece(step, text);
  }
  return text;
}

// SentencePiece's own loop: what one rule (or one character) turns into, with spaces squeezed as it
// goes.
std::string Normalizer::sentencepiece(const Step& step, std::string_view text) const {
  const NormalizerStep& definition = step.definition;
  const auto next = [&](std::string_view rest) -> Charsmap::Match {
    if (const Trie::Match kept = user_defined_.longest(rest); kept.length > 0)
      return {kept.length, rest.substr(0, kept.length)};
    if (!step.charsmap.empty())
      if (const Charsmap::Match rule = step.charsmap.front().longest(rest); rule.length > 0)
        return rule;
    const size_t length = std::max<size_t>(1, valid_char_length(rest));
    return {length, rest.substr(0, length)};
  };
  const std::string_view space = definition.escape_spaces ? kSpaceMark : " ";
  while (definition.squeeze_spaces && !text.empty()) {
    const Charsmap::Match front = next(text);
    if (front.replacement != " ") break;
    text.remove_prefix(front.length);
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 4);
  if (definition.dummy_prefix) out.append(space);
  bool after_space = definition.squeeze_spaces;
  while (!text.empty()) {
    auto [length, replacement] = next(text);
    while (after_space && replacement.starts_with(' ')) replacement.remove_prefix(1);
    for (const char c : replacement) {
      if (c == ' ') {
        out.append(space);
      } else {
        out.push_back(c);
      }
    }
    if (!replacement.empty()) after_space = definition.squeeze_spaces && replacement.ends_with(' ');
    text.remove_prefix(length);
  }
  while (definition.squeeze_spaces && out.ends_with(space)) out.erase(out.size() - space.size());
  return out;
}

}  // namespace spear
