// SentencePiece's precompiled normalization map: a double-array trie from byte sequences to
// replacements. The blob is hostile; every step is bounds-checked. Immutable: safe from every
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"

namespace spear {

class Charsmap {
 public:
  static Result<Charsmap> parse(std::string_view blob, std::string_view source);

  struct Match {
    size_t length = 0;  // 0: no rule starts the text
    std::string_view replacement;
  };
  [[nodiscard]] Match longest(std::string_view text) const { return search(text, true); }
  [[nodiscard]] Match shortest(std::string_view text) const { return search(text, false); }

  // The whole text as the `tokenizers` package's Precompiled does it: short graphemes first, then
  // characters.
  [[nodiscard]] std::string apply_by_grapheme(std::string_view text) const;

 private:
  [[nodiscard]] Match search(std::string_view text, bool longest) const;
  void append_grapheme(std::string& out, std::string_view grapheme) const;

  std::vector<uint32_t> units_;
  std::string replacements_;  // NUL-terminated strings, named by their offset
};

}  // namespace spear
