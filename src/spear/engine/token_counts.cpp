#include "spear/engine/token_counts.h"

namespace spear {

TokenCounts::TokenCounts(std::span<const int32_t> prompt, int64_t most_new) {
  const size_t most = prompt.size() + static_cast<size_t>(most_new);
  size_t capacity = 16;
  while (capacity < 2 * most) capacity *= 2;
  index_.assign(capacity, -1);
  counts_.reserve(most);
  for (const int32_t token : prompt) slot(token);
}

TokenCounts::Count& TokenCounts::slot(int32_t token) {
  const size_t mask = index_.size() - 1;
  size_t at = (static_cast<uint32_t>(token) * 2654435769u >> 7u) & mask;
  while (index_[at] >= 0 && counts_[static_cast<size_t>(index_[at])].token != token)
    at = (at + 1) & mask;
  if (index_[at] < 0) {
    index_[at] = static_cast<int32_t>(counts_.size());
    counts_.push_back({token, 0});
  }
  return counts_[static_cast<size_t>(index_[at])];
}

}  // namespace spear
