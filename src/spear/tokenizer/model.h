// A vocabulary's model: one word in, ids out. Two of them: joining pairs (bpe.h) and best paths
// (unigram.h). Immutable after build(): safe from every thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace spear {

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of `word`, any bytes of any length, to `ids`. Time grows as n log n.
  virtual void encode(std::string_view word, std::vector<int32_t>& ids) const = 0;
  // Whether a text may be cut before every space mark that follows another character, for the sake
  // of the word cache, without changing a single id.
  [[nodiscard]] virtual bool cuts_at_space_marks() const { return false; }
};

}  // namespace spear
