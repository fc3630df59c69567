#include "spear/tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "spear/tokenizer/piece_ids.h"
#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr double kUnknownPenalty = 10.0;  // below the worst piece, as in SentencePiece

}  // namespace

UnigramModel::UnigramModel(const TokenizerDefinition& definition)
    : fuse_unknown_(definition.fuse_unknown),
      single_precision_(definition.single_precision),
      unknown_(definition.unknown),
      kinds_(definition.kinds),
      scores_(definition.scores) {
  bytes_.fill(-1);
  if (definition.byte_fallback) bytes_ = byte_pieces(definition);
  double worst = std::numeric_limits<double>::max();
  double best = std::numeric_limits<double>::lowest();
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    const PieceKind kind = kinds_[i];
    if (kind == PieceKind::kNormal || kind == PieceKind::kUserDefined)
      pieces_.insert(definition.pieces[i], static_cast<int32_t>(i));
    if (kind != PieceKind::kNormal) continue;
    worst = std::min(worst, scores_[i]);
    best = std::max(best, scores_[i]);
  }
  unknown_score_ = rounded(worst - kUnknownPenalty);
  best_score_ = best;
}

double UnigramModel::rounded(double value) const {
  return single_precision_ ? static_cast<double>(static_cast<float>(value)) : value;
}

// Viterbi over byte positions; every position that ends a character can be reached. SentencePiece
// compares sums in double with best sums kept in float; over long texts only the same rounding
// finds the same path.
std::vector<UnigramModel::Node> UnigramModel::best_paths(std::string_view word) const {
  std::vector<Node> nodes(word.size() + 1);
  for (size_t at = 0; at < word.size();) {
    const double before = nodes[at].score;
    const size_t character = std::max<size_t>(1, valid_char_length(word.substr(at)));
    bool has_single = false;
    const auto offer = [&](size_t length, int32_t id, double score) {
      Node& node = nodes[at + length];
      const double total = score + before;
      if (!node.reached || total > node.score) node = {rounded(total), at, id, true};
    };
    pieces_.for_each_prefix(word.substr(at), [&](size_t length, int32_t id) {
      const bool user_defined = kinds_[id] == PieceKind::kUserDefined;
      offer(length, id,
            user_defined ? rounded(static_cast<double>(length) * best_score_) - 0.1 : scores_[id]);
      has_single |= length == character;
    });
    if (!has_single) offer(character, unknown_, rounded(unknown_score_ + before) - before);
    at += character;
  }
  return nodes;
}

void UnigramModel::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  const std::vector<Node> nodes = best_paths(word);
  std::vector<int32_t> reversed;
  bool after_unknown = false;  // seen from the right
  for (size_t end = word.size(); end > 0; end = nodes[end].begin) {
    const Node& node = nodes[end];
    if (node.id != unknown_) {
      reversed.push_back(node.id);
      after_unknown = false;
      continue;
    }
    const std::string_view text = word.substr(node.begin, end - node.begin);
    const bool has_bytes = std::all_of(
        text.begin(), text.end(), [this](char c) { return bytes_[static_cast<uint8_t>(c)] >= 0; });
    if (has_bytes) {
      for (size_t i = text.size(); i-- > 0;)
        reversed.push_back(bytes_[static_cast<uint8_t>(text[i])]);
    } else if (!(fuse_unknown_ && after_unknown)) {
      reversed.push_back(unknown_);
    }
    after_unknown = !has_bytes;
  }
  ids.insert(ids.end(), reversed.rbegin(), reversed.rend());
}

}  // namespace spear
