// Which tokens occurred in a prompt and an answer, and how often in the answer: what penalties are
// computed from. One open-addressed table, as large as the longest answer needs. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spear {

class TokenCounts {
 public:
  struct Count {
    int32_t token = -1;
    int32_t in_answer = 0;  // 0: in the prompt only
  };

  TokenCounts() = default;
  // Room for the prompt and `most_new` tokens more.
  TokenCounts(std::span<const int32_t> prompt, int64_t most_new);

  void add(int32_t token) { ++slot(token).in_answer; }
  // Every token that occurred, in no order that means anything.
  [[nodiscard]] std::span<const Count> all() const { return counts_; }

 private:
  Count& slot(int32_t token);

  std::vector<Count> counts_;
  std::vector<int32_t> index_;  // hash → place in counts_, -1: free; a power of two
};

}  // namespace spear
