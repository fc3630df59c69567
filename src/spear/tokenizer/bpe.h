// Byte-pair encoding, by ranked merges (GPT-2, Llama 3, Qwen) or by the scores of joint pieces
// (SentencePiece).
#pragma once

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "spear/tokenizer/definition.h"
#include "spear/tokenizer/flat_table.h"
#include "spear/tokenizer/model.h"
#include "spear/tokenizer/piece_ids.h"
#include "spear/tokenizer/trie.h"

namespace spear {

class BpeModel final : public TokenModel {
 public:
  // `definition` has passed check_definition().
  explicit BpeModel(const TokenizerDefinition& definition);

  void encode(std::string_view word, std::vector<int32_t>& ids) const override;
  [[nodiscard]] bool cuts_at_space_marks() const override { return cuts_at_space_marks_; }

 private:
  static constexpr int32_t kNone = -1;
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  using Halves = std::pair<int32_t, int32_t>;
  using Undo = std::unordered_map<int32_t, Halves>;

  void add_ranked_merges(const TokenizerDefinition& definition);
  void add_scored_merges(const TokenizerDefinition& definition);
  int32_t half(std::string_view text);
  void note_space_marks(const TokenizerDefinition& definition);

  void start(std::string_view word, std::vector<int32_t>& symbols) const;
  void start_character(std::string_view character, std::vector<int32_t>& symbols) const;
  void join_short(std::vector<int32_t>& symbols, Undo& undo) const;
  void join_long(std::vector<int32_t>& symbols, Undo& undo) const;
  void finish(const std::vector<int32_t>& symbols, const Undo& undo,
              std::vector<int32_t>& ids) const;
  [[nodiscard]] const Merge* merge_of(int32_t left, int32_t right) const;
  void note_merge(const Merge& merge, int32_t left, int32_t right, Undo& undo) const;

  bool byte_level_;
  bool ignore_merges_;
  bool fuse_unknown_;
  bool cuts_at_space_marks_ = false;
  int32_t unknown_;
  int32_t vocabulary_;  // ids from here on are characters that only exist as halves of pieces
  std::array<int32_t, 256> bytes_{};          // piece of each byte, or kNone
  PieceIds ids_of_text_;                      // what the model can say, in bytes
  std::vector<std::string> half_characters_;  // id - vocabulary_ → text
  FlatTable<Merge> merges_;                   // (left, right) → rank and joint piece
  Trie whole_;                                // user-defined pieces: taken whole, never joined
  std::vector<bool> unused_;  // by id; empty where none is: pieces taken apart again
};

}  // namespace spear
