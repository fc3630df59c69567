// The unigram model: of all ways to cut a text into pieces, the one of the best total score.
#pragma once

#include <array>
#include <vector>

#include "spear/tokenizer/definition.h"
#include "spear/tokenizer/model.h"
#include "spear/tokenizer/trie.h"

namespace spear {

class UnigramModel final : public TokenModel {
 public:
  // `definition` has passed check_definition().
  explicit UnigramModel(const TokenizerDefinition& definition);

  void encode(std::string_view word, std::vector<int32_t>& ids) const override;

 private:
  struct Node {
    double score = 0;  // of the best path that ends here
    size_t begin = 0;  // where its last piece begins
    int32_t id = 0;    // that piece
    bool reached = false;
  };
  [[nodiscard]] double rounded(double value) const;
  [[nodiscard]] std::vector<Node> best_paths(std::string_view word) const;

  bool fuse_unknown_;
  bool single_precision_;
  int32_t unknown_;
  double unknown_score_ = 0;
  double best_score_ = 0;  // per byte: user-defined pieces outscore all others
  std::array<int32_t, 256> bytes_{};
  std::vector<PieceKind> kinds_;
  std::vector<double> scores_;
  Trie pieces_;
};

}  // namespace spear
