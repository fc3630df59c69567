// A regular expression in the dialect of Hugging Face's tokenizer files (Oniguruma's), compiled by
// PCRE2 with its JIT. Patterns and texts are hostile: what the two dialects read differently is
// refused by name, and a pattern that backtracks without end stops with a Failure. Immutable after
// compile(): safe from every thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "spear/base/error.h"

namespace spear {

class Pattern {
 public:
  static Result<Pattern> compile(std::string_view expression, std::string_view source);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

 private:
  struct Compiled;
  friend class Matcher;
  explicit Pattern(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

// A pattern at work: PCRE2's scratch memory and one allowance of time for all texts it is given,
// `bytes` in all. Lives no longer than its pattern. One owner, one thread.
class Matcher {
 public:
  Matcher(const Pattern& pattern, size_t bytes);
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  ~Matcher();

  // Calls visit(begin, end) for every match, from left to right. Invalid UTF-8 never takes part in
  // one.
  template <class Visit>
  void find_all(std::string_view text, Visit&& visit) {
    size_t at = 0;
    for (Match match; at < text.size() && next(text, at, match);) visit(match.begin, match.end);
  }

 private:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
  };
  struct State;
  // The first match at or after `at`, which moves behind it.
  bool next(std::string_view text, size_t& at, Match& match);
  std::unique_ptr<State> state_;
};

// The same expression as PCRE2 must see it: white space and categories of Unicode 16 spelled out.
Result<std::string> translate_pattern(std::string_view expression, std::string_view source);

}  // namespace spear
