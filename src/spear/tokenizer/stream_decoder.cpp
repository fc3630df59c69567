#include "spear/tokenizer/stream_decoder.h"

#include <utility>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

}  // namespace

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamDecoder::push(int32_t id) {
  std::string_view bytes = tokenizer_.token_bytes(id);
  const bool special = tokenizer_.is_special(id);
  if (special && skip_special_) return {};
  if (at_start_ && !special && tokenizer_.strips_first_space() && bytes.starts_with(' '))
    bytes.remove_prefix(1);
  if (!special) at_start_ = false;
  waiting_.append(bytes);
  return take(false);
}

std::string StreamDecoder::finish() {
  at_start_ = true;
  return take(true);
}

std::string StreamDecoder::take(bool at_end) {
  std::string text;
  size_t at = 0;
  while (at < waiting_.size()) {
    const std::string_view rest = std::string_view(waiting_).substr(at);
    const size_t length = valid_char_length(rest);
    if (length > 0) {
      text.append(rest.substr(0, length));
      at += length;
    } else if (expected_char_length(rest) > 0) {  // right so far, cut short
      if (!at_end) break;
      text.append(kReplacement);
      at = waiting_.size();
    } else {
      text.append(kReplacement);
      ++at;
    }
  }
  waiting_.erase(0, at);
  return text;
}

}  // namespace spear
