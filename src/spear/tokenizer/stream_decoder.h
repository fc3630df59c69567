// Turns a stream of ids into UTF-8 that never splits a character: bytes wait until their character
// is whole. Bytes that can never become one are written as U+FFFD. One owner, one thread.
#pragma once

#include <cstdint>
#include <string>

#include "spear/tokenizer/tokenizer.h"

namespace spear {

class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true);

  // The text that became certain with this id: maybe empty, always valid UTF-8.
  std::string push(int32_t id);
  // The rest, when no more ids come: an unfinished character is written as U+FFFD.
  std::string finish();

 private:
  std::string take(bool at_end);

  Tokenizer tokenizer_;
  std::string waiting_;
  bool skip_special_;
  bool at_start_ = true;
};

}  // namespace spear
