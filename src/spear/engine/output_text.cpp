#include "spear/engine/output_text.h"

#include <algorithm>

namespace spear {

OutputText::OutputText(const Tokenizer* tokenizer, bool skip_special,
                       std::span<const std::string> stop, bool include_stop)
    : tokenizer_(tokenizer), stop_(stop), include_stop_(include_stop) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer, skip_special);
}

// The stop string that begins first; of those the longest.
bool OutputText::find_stop() {
  size_t first = std::string::npos;
  const std::string* found = nullptr;
  for (const std::string& stop : stop_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (found == nullptr || at < first || (at == first && stop.size() > found->size())) {
      first = at;
      found = &stop;
    }
  }
  if (found == nullptr) return false;
  certain_.append(held_, 0, include_stop_ ? first + found->size() : first);
  held_.clear();
  stopped_by_ = *found;
  return true;
}

// All but the longest end that a stop string begins with. Stop strings are whole characters, so
// none is cut.
void OutputText::release() {
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) {
        keep = length;
        break;
      }
    }
  }
  certain_.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
}

bool OutputText::push(int32_t token, bool may_stop) {
  // Rows that only pad the vocabulary have no text.
  if (!decoder_ || !tokenizer_->is_id(token)) return false;
  held_ += decoder_->push(token);
  if (!may_stop) {
    certain_ += held_;
    held_.clear();
    return false;
  }
  if (find_stop()) return true;
  release();
  return false;
}

void OutputText::finish() {
  if (!decoder_ || !stopped_by_.empty()) return;
  held_ += decoder_->finish();
  certain_ += held_;
  held_.clear();
}

}  // namespace spear
