#include "spear/tokenizer/bpe.h"

#include <algorithm>
#include <cmath>
#include <queue>

#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr size_t kShortWord = 32;  // up to here a scan for the best pair beats a heap
constexpr uint32_t kNoMerge = ~uint32_t{0};

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// A symbol that joins nothing (a byte piece, an unknown character, a user-defined piece) is kept
// negative.
int32_t frozen(int32_t id) {
  return -2 - id;
}

// Rank by score: equal scores share a rank, so that the leftmost pair wins.
std::vector<uint32_t> ranks_of_scores(const std::vector<double>& scores) {
  std::vector<double> distinct(scores);
  std::sort(distinct.begin(), distinct.end(), std::greater<>());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<uint32_t> ranks(scores.size());
  for (size_t i = 0; i < scores.size(); ++i)
    ranks[i] = static_cast<uint32_t>(
        std::lower_bound(distinct.begin(), distinct.end(), scores[i], std::greater<>()) -
        distinct.begin());
  return ranks;
}

}  // namespace

BpeModel::BpeModel(const TokenizerDefinition& definition)
    : byte_level_(definition.byte_level),
      ignore_merges_(definition.ignore_merges),
      fuse_unknown_(definition.fuse_unknown),
      unknown_(definition.unknown),
      vocabulary_(static_cast<int32_t>(definition.pieces.size())),
      ids_of_text_(piece_ids(definition)) {
  bytes_.fill(kNone);
  if (definition.byte_level || definition.byte_fallback) bytes_ = byte_pieces(definition);
  if (definition.model == ModelKind::kScoreBpe) {
    add_scored_merges(definition);
  } else {
    add_ranked_merges(definition);
  }
  note_space_marks(definition);
}

void BpeModel::add_ranked_merges(const TokenizerDefinition& definition) {
  merges_ = FlatTable<Merge>(definition.merges.size());
  PieceIds by_piece;  // merges join pieces as written
  by_piece.reserve(definition.pieces.size());
  for (size_t i = 0; i < definition.pieces.size(); ++i)
    by_piece.emplace(definition.pieces[i], static_cast<int32_t>(i));
  std::string joint;
  for (size_t rank = 0; rank < definition.merges.size(); ++rank) {
    const auto [left, right] = definition.merges[rank];
    joint.assign(definition.pieces[left]).append(definition.pieces[right]);
    const auto found = by_piece.find(joint);  // check_definition() saw that it is there
    merges_.insert(pair_key(left, right), {static_cast<uint32_t>(rank), found->second});
  }
}

// Any two neighbours whose joint text is a piece may join: every cut of every piece is a merge.
void BpeModel::add_scored_merges(const TokenizerDefinition& definition) {
  const std::vector<uint32_t> ranks = ranks_of_scores(definition.scores);
  unused_.assign(definition.pieces.size(), false);
  bool any_unused = false;
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    const PieceKind kind = definition.kinds[i];
    const std::string_view piece = definition.pieces[i];
    if (kind == PieceKind::kUserDefined) whole_.insert(piece, static_cast<int32_t>(i));
    if (kind != PieceKind::kNormal && kind != PieceKind::kUnused) continue;
    any_unused |= kind == PieceKind::kUnused;
    unused_[i] = kind == PieceKind::kUnused;
    for (size_t at = valid_char_length(piece); at < piece.size();
         at += valid_char_length(piece.substr(at))) {
      const int32_t left = half(piece.substr(0, at));
      const int32_t right = half(piece.substr(at));
      if (left != kNone && right != kNone)
        merges_.insert(pair_key(left, right), {ranks[i], static_cast<int32_t>(i)});
    }
  }
  if (!any_unused) unused_.clear();
}

// The id of a half of a piece. A single character that is no piece itself can still be joined: it
// gets an id of its own behind the vocabulary.
int32_t BpeModel::half(std::string_view text) {
  if (const auto found = ids_of_text_.find(text); found != ids_of_text_.end()) return found->second;
  if (valid_char_length(text) != text.size()) return kNone;
  const auto id = static_cast<int32_t>(vocabulary_ + half_characters_.size());
  half_characters_.emplace_back(text);
  ids_of_text_.emplace(text, id);
  return id;
}

// A text may be cut before a space mark when no piece reaches over such a place.
void BpeModel::note_space_marks(const TokenizerDefinition& definition) {
  cuts_at_space_marks_ = !byte_level_ && !ignore_merges_ && ids_of_text_.contains(kSpaceMark);
  for (size_t i = 0; i < definition.pieces.size() && cuts_at_space_marks_; ++i) {
    std::string_view piece = definition.pieces[i];
    while (piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
    if (definition.kinds[i] != PieceKind::kControl &&
        piece.find(kSpaceMark) != std::string_view::npos)
      cuts_at_space_marks_ = false;
  }
}

void BpeModel::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto found = ids_of_text_.find(word); found != ids_of_text_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  std::vector<int32_t> symbols;
  Undo undo;
  start(word, symbols);
  if (symbols.size() <= kShortWord) {
    join_short(symbols, undo);
  } else {
    join_long(symbols, undo);
  }
  finish(symbols, undo, ids);
}

void BpeModel::start(std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.reserve(word.size());
  if (byte_level_) {
    for (const char c : word) {
      const int32_t id = bytes_[static_cast<uint8_t>(c)];
      if (id != kNone) {
        symbols.push_back(id);
      } else if (unknown_ != kNone) {
        symbols.push_back(frozen(unknown_));
      }
    }
    return;
  }
  while (!word.empty()) {
    const bool maybe_whole = !whole_.empty() && whole_.starts_with(static_cast<uint8_t>(word[0]));
    size_t length = 0;
    if (maybe_whole) {
      const Trie::Match match = whole_.longest(word);
      length = match.length;
      if (length > 0) symbols.push_back(frozen(match.value));
    }
    if (length == 0) {
      length = std::max<size_t>(1, valid_char_length(word));
      start_character(word.substr(0, length), symbols);
    }
    word.remove_prefix(length);
  }
}

void BpeModel::start_character(std::string_view character, std::vector<int32_t>& symbols) const {
  if (const auto found = ids_of_text_.find(character); found != ids_of_text_.end()) {
    symbols.push_back(found->second);
    return;
  }
  const bool all_bytes = std::all_of(character.begin(), character.end(), [this](char c) {
    return bytes_[static_cast<uint8_t>(c)] != kNone;
  });
  if (all_bytes) {
    for (const char c : character) symbols.push_back(frozen(bytes_[static_cast<uint8_t>(c)]));
  } else if (unknown_ != kNone) {
    symbols.push_back(frozen(unknown_));
  }
}

const BpeModel::Merge* BpeModel::merge_of(int32_t left, int32_t right) const {
  return left < 0 || right < 0 ? nullptr : merges_.find(pair_key(left, right));
}

void BpeModel::note_merge(const Merge& merge, int32_t left, int32_t right, Undo& undo) const {
  if (!unused_.empty() && unused_[merge.id]) undo[merge.id] = {left, right};
}

void BpeModel::join_short(std::vector<int32_t>& symbols, Undo& undo) const {
  std::array<uint32_t, kShortWord> ranks{};  // of the pair that begins at each symbol
  const auto rank_at = [&](size_t i) {
    const Merge* merge = i + 1 < symbols.size() ? merge_of(symbols[i], symbols[i + 1]) : nullptr;
    return merge == nullptr ? kNoMerge : merge->rank;
  };
  for (size_t i = 0; i < symbols.size(); ++i) ranks[i] = rank_at(i);
  while (symbols.size() > 1) {
    const auto end = ranks.begin() + static_cast<ptrdiff_t>(symbols.size());
    const auto best = std::min_element(ranks.begin(), end);
    if (*best == kNoMerge) return;
    const auto at = static_cast<size_t>(best - ranks.begin());
    const Merge merge = *merge_of(symbols[at], symbols[at + 1]);
    note_merge(merge, symbols[at], symbols[at + 1], undo);
    symbols[at] = merge.id;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
    std::copy(best + 2, end, best + 1);
    ranks[at] = rank_at(at);
    if (at > 0) ranks[at - 1] = rank_at(at - 1);
  }
}

// The same with a heap of candidate pairs over a linked list: n log n for words of any length.
void BpeModel::join_long(std::vector<int32_t>& symbols, Undo& undo) const {
  struct Candidate {
    uint64_t order;  // rank, then position: the leftmost of equals comes first
    int32_t left;
    int32_t right;
    bool operator>(const Candidate& other) const { return order > other.order; }
  };
  constexpr uint32_t kEnd = ~uint32_t{0};
  const auto count = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(count);
  std::vector<uint32_t> previous(count);
  std::vector<Candidate> first;
  const auto candidate = [&](uint32_t at, uint32_t after, auto&& use) {
    if (const Merge* merge = merge_of(symbols[at], symbols[after]))
      use(Candidate{(uint64_t{merge->rank} << 32) | at, symbols[at], symbols[after]});
  };
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
    if (i + 1 < count) candidate(i, i + 1, [&](Candidate c) { first.push_back(c); });
  }
  std::priority_queue heap(std::greater<>{}, std::move(first));
  std::vector<bool> gone(count, false);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    const auto at = static_cast<uint32_t>(best.order);
    const uint32_t after = next[at];
    if (gone[at] || after == kEnd || symbols[at] != best.left || symbols[after] != best.right)
      continue;
    const Merge merge = *merge_of(best.left, best.right);
    note_merge(merge, best.left, best.right, undo);
    symbols[at] = merge.id;
    gone[after] = true;
    next[at] = next[after];
    if (next[at] != kEnd) previous[next[at]] = at;
    const auto push = [&heap](Candidate c) { heap.push(c); };
    if (next[at] != kEnd) candidate(at, next[at], push);
    if (previous[at] != kEnd) candidate(previous[at], at, push);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i != kEnd && i < count; i = next[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

void BpeModel::finish(const std::vector<int32_t>& symbols, const Undo& undo,
                      std::vector<int32_t>& ids) const {
  const size_t begin = ids.size();
  std::vector<int32_t> todo;
  std::vector<int32_t> pieces;
  for (const int32_t symbol : symbols) {
    todo.push_back(symbol);
    while (!todo.empty()) {
      const int32_t part = todo.back();
      todo.pop_back();
      const auto apart = undo.find(part);
      pieces.clear();
      if (apart != undo.end()) {
        todo.push_back(apart->second.second);
        todo.push_back(apart->second.first);
      } else if (part < vocabulary_) {
        pieces.push_back(part < 0 ? frozen(part) : part);
      } else {
        const std::string& character = half_characters_[part - vocabulary_];
        for (const char c : character) pieces.push_back(bytes_[static_cast<uint8_t>(c)]);
        if (std::find(pieces.begin(), pieces.end(), kNone) != pieces.end())
          pieces.assign(unknown_ == kNone ? 0 : 1, unknown_);
      }
      for (const int32_t id : pieces) {
        const bool fused =
            fuse_unknown_ && id == unknown_ && ids.size() > begin && ids.back() == id;
        if (!fused) ids.push_back(id);
      }
    }
  }
}

}  // namespace spear
