// What a tokenizer is, whatever file it came from: pieces, how text is prepared and cut, how pieces
// are joined. Every importer fills one of these, check_definition() judges it, and the artifact
// stores it. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spear/base/error.h"

namespace spear {

// Numbered as in SentencePiece and GGUF.
enum class PieceKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// A text that is one token wherever it stands, found before the model sees the text.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;  // control: not matched unless asked for, skipped when decoding for people
  bool normalized = false;   // matched after normalization instead of before
  bool left_strip = false;   // swallows white space on its left
  bool right_strip = false;  // and on its right
  bool single_word = false;  // only between non-word characters
};

enum class NormalizerKind : uint8_t {
  kNfc,
  kNfd,
  kNfkc,
  kNfkd,
  kPrepend,         // content before any non-empty text
  kReplace,         // literal pattern → content
  kReplacePattern,  // regular expression → content
  kStrip,           // white space at the start (left) and the end (right)
  kCharsmap,  // pattern: a SentencePiece charsmap, applied by grapheme as the `tokenizers` package
              // does
  kSentencePiece,  // pattern: the same, applied by longest prefix as SentencePiece does; then its
                   // spaces
};

struct NormalizerStep {
  NormalizerKind kind = NormalizerKind::kNfc;
  std::string pattern;
  std::string content;
  bool left = false;            // kStrip
  bool right = false;           // kStrip
  bool dummy_prefix = false;    // kSentencePiece: a space before the text
  bool squeeze_spaces = false;  // kSentencePiece: runs become one, ends are trimmed
  bool escape_spaces = false;   // kSentencePiece: ' ' is written as U+2581
};

enum class SplitKind : uint8_t { kPattern, kLiteral, kMetaspace, kPrefixSpace };
enum class SplitBehavior : uint8_t {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};
enum class PrependScheme : uint8_t { kNever, kFirst, kAlways };

struct SplitStep {
  SplitKind kind = SplitKind::kPattern;
  std::string pattern;  // kMetaspace: what replaces a space
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
  bool cut = true;                                // kMetaspace: also cut before each replacement
  PrependScheme prepend = PrependScheme::kNever;  // kMetaspace
};

enum class ModelKind : uint8_t {
  kMergeBpe,  // joins the pair that stands first in `merges`
  kScoreBpe,  // joins the pair whose joint piece has the best score (SentencePiece)
  kUnigram,   // the path of best total score
};

struct TokenizerDefinition {
  ModelKind model = ModelKind::kMergeBpe;
  bool byte_level = false;     // pieces are written in GPT-2's alphabet of 256 visible characters
  bool byte_fallback = false;  // unknown characters become the pieces <0x00> … <0xFF>
  bool ignore_merges = false;  // a word that is a piece is not taken apart first
  bool fuse_unknown = false;   // neighbouring unknown characters are one unknown token
  bool single_precision = false;    // kUnigram: sums in float, as SentencePiece does
  bool strip_first_space = false;   // decoding drops the space that a dummy prefix put first
  std::vector<std::string> pieces;  // by id, as the vocabulary file writes them
  std::vector<PieceKind> kinds;     // by id
  std::vector<double> scores;       // by id; empty for kMergeBpe
  std::vector<std::pair<int32_t, int32_t>> merges;  // kMergeBpe, best first
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitStep> splits;
  std::vector<int32_t> prefix;  // ids put before a text when special tokens are asked for
  std::vector<int32_t> suffix;  // and after it
  int32_t bos = -1;             // -1: none
  int32_t eos = -1;
  int32_t unknown = -1;
  int32_t padding = -1;
  std::string chat_template;  // Jinja text; empty: none
};

// U+2581, which SentencePiece writes for a space.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

// Refuses what no tokenizer may contain: ids out of range, empty or repeated pieces, invalid UTF-8,
// merges that name no piece, scores that are not numbers. `source` is named in the sentence.
Result<void> check_definition(const TokenizerDefinition& definition, std::string_view source);

// The form stored in an artifact: docs/tokenizer-section.md. parse() takes hostile bytes.
std::string serialize_definition(const TokenizerDefinition& definition);
Result<TokenizerDefinition> parse_definition(std::string_view bytes, std::string_view source);

}  // namespace spear
