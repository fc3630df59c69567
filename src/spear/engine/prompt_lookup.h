// Guesses how a text goes on by what followed its last tokens when they occurred before. Guesses
// are only ever checked against what would have been chosen anyway, so they change no answer. Finds
// the latest earlier place by an index of n-grams that grows with the text; nothing is searched.
// One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spear {

class PromptLookup {
 public:
  static constexpr int64_t kMatch = 3;  // tokens that must agree

  PromptLookup() = default;
  explicit PromptLookup(int64_t most_tokens);

  // Indexes `tokens` from where the last call ended, then writes at most `most` guesses of what
  // follows them.
  void propose(std::span<const int32_t> tokens, int64_t most, std::vector<int32_t>& guesses);
  // How many of the last guesses were right. Few: guessing pauses for a while, since every wrong
  // guess costs a row.
  void learned(int64_t guessed, int64_t right);

 private:
  [[nodiscard]] size_t home(std::span<const int32_t> gram) const;
  void index_until(std::span<const int32_t> tokens, int64_t end);

  std::vector<int32_t> last_;  // hash of a gram → where it ended last; a power of two
  int64_t indexed_ = 0;        // grams that end before this position are in the table
  int64_t pause_ = 0;          // calls to skip
  int64_t patience_ = 1;       // of the next pause
};

}  // namespace spear
