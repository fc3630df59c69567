// How a text becomes predictions to score. Two protocols of the field, which give different
// figures:
//   NAME@2048   the GPTQ protocol: windows of 2048 tokens, every token but a window's first is
//   scored; NAME@512h   llama.cpp's: windows of 512 tokens that start with the model's BOS token
//   where it has one,
//               the tokens of a window's second half are scored.
// Plain values; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"

namespace spear {

struct Protocol {
  int64_t context = 2048;
  bool second_half = false;
  int64_t max_windows = 0;  // 0: all that the text fills

  // Position p of a window predicts its token p + 1; scored are p in [first, context - 1).
  [[nodiscard]] int64_t first() const { return second_half ? context / 2 : 0; }
  [[nodiscard]] int64_t predictions() const { return context - 1 - first(); }
  [[nodiscard]] std::string suffix() const;  // "@512h"
};

// What to measure on: a text of the data folder by name ("wikitext2") or a file, and how.
struct TextSpec {
  std::string source;
  Protocol protocol;
};

// SOURCE[@CONTEXT[h][:WINDOWS]]: "wikitext2@2048", "wikitext2@512h:96", "notes/book.txt@1024".
// Without "@..." the context is 2048.
Result<TextSpec> parse_text_spec(std::string_view text);

// The windows of a text, side by side.
struct Windows {
  std::string name;  // "wikitext2@2048"
  Protocol protocol;
  int64_t count = 0;
  int64_t text_tokens = 0;      // of the whole text, before it was cut
  std::vector<int32_t> tokens;  // [count, context], as the model reads them
  std::string content_hash;     // sha256 of the tokens and the protocol: names caches

  [[nodiscard]] std::span<const int32_t> window(int64_t i) const {
    return std::span(tokens).subspan(static_cast<size_t>(i * protocol.context),
                                     static_cast<size_t>(protocol.context));
  }
  // The tokens that the scored positions of window i predict, [predictions].
  [[nodiscard]] std::span<const int32_t> targets(int64_t i) const {
    return window(i).subspan(static_cast<size_t>(protocol.first() + 1));
  }
};

// Cuts a tokenized text. `bos` replaces the first token of every window under llama.cpp's protocol;
// -1: the model adds none. Refuses a text that does not fill one window, tokens outside [0, vocab),
// and a context the model was not made for.
struct ModelLimits {
  int64_t vocab_size = 0;
  int64_t max_context = 0;
};
Result<Windows> cut_windows(std::string name, const Protocol& protocol,
                            std::span<const int32_t> text_tokens, int32_t bos,
                            const ModelLimits& limits);

}  // namespace spear
