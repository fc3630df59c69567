#include "spear/tokenizer/pretokenize.h"

#include <utility>

namespace spear {
namespace {

struct Span {
  size_t begin;
  size_t end;
  bool matched;
};

using Spans = std::vector<Span>;

// Matches and the gaps between them, in order, covering the word.
template <class FindAll>
Spans matches_and_gaps(std::string_view word, bool invert, FindAll&& find_all) {
  Spans spans;
  size_t at = 0;
  find_all([&](size_t begin, size_t end) {
    if (begin > at) spans.push_back({at, begin, invert});
    spans.push_back({begin, end, !invert});
    at = end;
  });
  if (at < word.size()) spans.push_back({at, word.size(), invert});
  return spans;
}

Spans find_literal(std::string_view word, std::string_view literal, bool invert) {
  return matches_and_gaps(word, invert, [&](auto&& visit) {
    for (size_t at = 0; !literal.empty();) {
      const size_t hit = word.find(literal, at);
      if (hit == std::string_view::npos) return;
      visit(hit, at = hit + literal.size());
    }
  });
}

void merge_with_previous(Spans& spans) {
  Spans merged;
  bool previous_matched = false;
  for (const Span& span : spans) {
    if (span.matched && !previous_matched && !merged.empty()) {
      merged.back().end = span.end;
    } else {
      merged.push_back(span);
    }
    previous_matched = span.matched;
  }
  spans = std::move(merged);
}

void merge_with_next(Spans& spans) {
  Spans merged;
  for (size_t i = 0; i < spans.size(); ++i) {
    Span span = spans[i];
    if (span.matched && i + 1 < spans.size() && !spans[i + 1].matched) span.end = spans[++i].end;
    merged.push_back(span);
  }
  spans = std::move(merged);
}

void merge_contiguous(Spans& spans) {
  Spans merged;
  for (const Span& span : spans) {
    if (!merged.empty() && merged.back().matched == span.matched) {
      merged.back().end = span.end;
    } else {
      merged.push_back(span);
    }
  }
  spans = std::move(merged);
}

void behave(Spans& spans, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      std::erase_if(spans, [](const Span& span) { return span.matched; });
      return;
    case SplitBehavior::kMergedWithPrevious:
      return merge_with_previous(spans);
    case SplitBehavior::kMergedWithNext:
      return merge_with_next(spans);
    case SplitBehavior::kContiguous:
      return merge_contiguous(spans);
  }
}

void emit(std::string_view word, const Spans& spans, Words& words) {
  for (const Span& span : spans)
    if (span.end > span.begin) words.list.push_back(word.substr(span.begin, span.end - span.begin));
}

std::string with_spaces_replaced(std::string_view word, std::string_view replacement) {
  std::string out;
  for (const char c : word) {
    if (c == ' ') {
      out.append(replacement);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

void metaspace(const SplitStep& step, std::string_view word, bool at_start, Words& words) {
  std::string& text = words.changed.emplace_back(with_spaces_replaced(word, step.pattern));
  const bool wanted =
      step.prepend == PrependScheme::kAlways || (step.prepend == PrependScheme::kFirst && at_start);
  if (wanted && !text.starts_with(step.pattern)) text.insert(0, step.pattern);
  if (!step.cut) {
    words.list.push_back(text);
    return;
  }
  Spans spans = find_literal(text, step.pattern, false);
  merge_with_next(spans);
  emit(text, spans, words);
}

void prefix_space(std::string_view word, Words& words) {
  if (!word.starts_with(' ')) word = words.changed.emplace_back(1, ' ').append(word);
  words.list.push_back(word);
}

}  // namespace

Result<PreTokenizer> PreTokenizer::build(const std::vector<SplitStep>& steps,
                                         std::string_view source) {
  PreTokenizer result;
  for (const SplitStep& definition : steps) {
    Step step{definition, {}};
    if (definition.kind == SplitKind::kPattern) {
      Result<Pattern> pattern = Pattern::compile(definition.pattern, source);
      if (!pattern) return tl::unexpected(pattern.error());
      step.pattern.push_back(std::move(*pattern));
    }
    result.steps_.push_back(std::move(step));
  }
  return result;
}

void PreTokenizer::apply_pattern(const Step& step, const std::vector<std::string_view>& before,
                                 Words& words) {
  size_t bytes = 0;
  for (const std::string_view word : before) bytes += word.size();
  Matcher matcher(step.pattern.front(), bytes);
  const SplitStep& definition = step.definition;
  for (const std::string_view word : before) {
    if (definition.behavior != SplitBehavior::kIsolated) {
      Spans spans = matches_and_gaps(word, definition.invert,
                                     [&](auto&& visit) { matcher.find_all(word, visit); });
      behave(spans, definition.behavior);
      emit(word, spans, words);
      continue;
    }
    size_t at = 0;  // the common case, without a list of spans
    matcher.find_all(word, [&](size_t begin, size_t end) {
      if (begin > at) words.list.push_back(word.substr(at, begin - at));
      if (end > begin) words.list.push_back(word.substr(begin, end - begin));
      at = end;
    });
    if (at < word.size()) words.list.push_back(word.substr(at));
  }
}

void PreTokenizer::cut(std::string_view text, bool at_start, Words& words) const {
  words.list.clear();
  if (!text.empty()) words.list.push_back(text);
  for (const Step& step : steps_) {
    std::vector<std::string_view> before;
    before.swap(words.list);
    words.list.reserve(before.size());
    const SplitStep& definition = step.definition;
    if (definition.kind == SplitKind::kPattern) {
      apply_pattern(step, before, words);
      continue;
    }
    for (size_t i = 0; i < before.size(); ++i) {
      if (definition.kind == SplitKind::kMetaspace) {
        metaspace(definition, before[i], at_start && i == 0, words);
      } else if (definition.kind == SplitKind::kPrefixSpace) {
        prefix_space(before[i], words);
      } else {
        Spans spans = find_literal(before[i], definition.pattern, definition.invert);
        behave(spans, definition.behavior);
        emit(before[i], spans, words);
      }
    }
  }
}

}  // namespace spear
