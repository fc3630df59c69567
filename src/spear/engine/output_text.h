// The text of one answer: tokens in, whole characters out, held back where a stop string may have
// begun. What could still become part of a stop string is never given out. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "spear/tokenizer/stream_decoder.h"

namespace spear {

class OutputText {
 public:
  // Without a tokenizer there is no text. The stop strings must outlive this.
  OutputText(const Tokenizer* tokenizer, bool skip_special, std::span<const std::string> stop,
             bool include_stop);

  // Adds a token's text to what certain() gives; whether a stop string is now complete: nothing
  // after it counts. `may_stop` false: stop strings are not looked for up to here.
  bool push(int32_t token, bool may_stop);
  // No more tokens come: what was held back is certain now.
  void finish();

  // What became certain since clear_certain().
  [[nodiscard]] const std::string& certain() const { return certain_; }
  void clear_certain() { certain_.clear(); }
  // The stop string that ended the text; empty: none.
  [[nodiscard]] const std::string& stopped_by() const { return stopped_by_; }

 private:
  bool find_stop();
  void release();

  std::optional<StreamDecoder> decoder_;
  const Tokenizer* tokenizer_;
  std::span<const std::string> stop_;
  bool include_stop_;
  std::string held_, certain_, stopped_by_;
};

}  // namespace spear
