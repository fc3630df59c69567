#include "spear/engine/prompt_lookup.h"

#include <algorithm>

namespace spear {
namespace {

constexpr int64_t kLongestPause = 32;

}  // namespace

PromptLookup::PromptLookup(int64_t most_tokens) {
  size_t size = 64;
  while (size < static_cast<size_t>(most_tokens)) size *= 2;
  last_.assign(size, 0);
}

size_t PromptLookup::home(std::span<const int32_t> gram) const {
  uint64_t h = 0;
  for (const int32_t token : gram) h = (h ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
  return static_cast<size_t>(h >> 20) & (last_.size() - 1);
}

// The table says where a gram ended; an entry of another gram with the same hash is found out by
// comparing.
void PromptLookup::index_until(std::span<const int32_t> tokens, int64_t end) {
  for (indexed_ = std::max(indexed_, kMatch); indexed_ < end; ++indexed_) {
    const auto gram = tokens.subspan(static_cast<size_t>(indexed_ - kMatch), kMatch);
    last_[home(gram)] = static_cast<int32_t>(indexed_);
  }
}

void PromptLookup::propose(std::span<const int32_t> tokens, int64_t most,
                           std::vector<int32_t>& guesses) {
  guesses.clear();
  const auto length = static_cast<int64_t>(tokens.size());
  if (last_.empty() || most <= 0 || length <= kMatch) return;
  index_until(tokens, length);  // not the last gram itself
  if (pause_ > 0) {
    --pause_;
    return;
  }
  const auto gram = tokens.last(static_cast<size_t>(kMatch));
  const int64_t at = last_[home(gram)];
  if (at < kMatch) return;
  if (!std::ranges::equal(tokens.subspan(static_cast<size_t>(at - kMatch), kMatch), gram)) return;
  const int64_t count = std::min(most, length - at);
  for (int64_t i = 0; i < count; ++i) guesses.push_back(tokens[static_cast<size_t>(at + i)]);
}

void PromptLookup::learned(int64_t guessed, int64_t right) {
  if (guessed == 0) return;
  if (right > 0) {
    patience_ = 1;
    return;
  }
  pause_ = patience_;
  patience_ = std::min(2 * patience_, kLongestPause);
}

}  // namespace spear
