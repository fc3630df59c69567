#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "spear/base/json.h"
#include "spear/tokenizer/base64.h"
#include "spear/tokenizer/tokenizer_json.h"
#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

// Pieces that text must not match in a unigram vocabulary (control, byte) get a score that no path
// wants.
constexpr double kUnwantedScore = -1e4;

SortedJson pattern_json(const char* kind, const std::string& pattern) {
  return {{kind, pattern}};
}

SortedJson replace_json(SortedJson pattern, std::string_view content) {
  return {{"type", "Replace"}, {"pattern", std::move(pattern)}, {"content", content}};
}

void append_sentencepiece(const NormalizerStep& step, SortedJson& list) {
  if (!step.pattern.empty())
    list.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", base64_encode(step.pattern)}});
  if (step.squeeze_spaces) {
    list.push_back({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
    list.push_back(replace_json(pattern_json("Regex", " {2,}"), " "));
  }
  if (step.dummy_prefix)
    list.push_back({{"type", "Prepend"}, {"prepend", step.escape_spaces ? kSpaceMark : " "}});
  if (step.escape_spaces) list.push_back(replace_json(pattern_json("String", " "), kSpaceMark));
}

void append_normalizer(const NormalizerStep& step, SortedJson& list) {
  switch (step.kind) {
    case NormalizerKind::kNfc:
      list.push_back({{"type", "NFC"}});
      return;
    case NormalizerKind::kNfd:
      list.push_back({{"type", "NFD"}});
      return;
    case NormalizerKind::kNfkc:
      list.push_back({{"type", "NFKC"}});
      return;
    case NormalizerKind::kNfkd:
      list.push_back({{"type", "NFKD"}});
      return;
    case NormalizerKind::kPrepend:
      list.push_back({{"type", "Prepend"}, {"prepend", step.content}});
      return;
    case NormalizerKind::kReplace:
      list.push_back(replace_json(pattern_json("String", step.pattern), step.content));
      return;
    case NormalizerKind::kReplacePattern:
      list.push_back(replace_json(pattern_json("Regex", step.pattern), step.content));
      return;
    case NormalizerKind::kStrip:
      list.push_back({{"type", "Strip"}, {"strip_left", step.left}, {"strip_right", step.right}});
      return;
    case NormalizerKind::kCharsmap:
      list.push_back(
          {{"type", "Precompiled"}, {"precompiled_charsmap", base64_encode(step.pattern)}});
      return;
    case NormalizerKind::kSentencePiece:
      append_sentencepiece(step, list);
      return;
  }
}

SortedJson normalizer_json(const TokenizerDefinition& definition) {
  SortedJson list = SortedJson::array();
  for (const NormalizerStep& step : definition.normalizer) append_normalizer(step, list);
  if (list.empty()) return nullptr;
  return {{"type", "Sequence"}, {"normalizers", std::move(list)}};
}

const char* behavior_name(SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      return "Removed";
    case SplitBehavior::kIsolated:
      return "Isolated";
    case SplitBehavior::kMergedWithPrevious:
      return "MergedWithPrevious";
    case SplitBehavior::kMergedWithNext:
      return "MergedWithNext";
    case SplitBehavior::kContiguous:
      return "Contiguous";
  }
  return "Isolated";
}

const char* scheme_name(PrependScheme scheme) {
  if (scheme == PrependScheme::kAlways) return "always";
  return scheme == PrependScheme::kFirst ? "first" : "never";
}

SortedJson byte_level_json(bool prefix_space, bool with_pattern) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", prefix_space},
          {"trim_offsets", false},
          {"use_regex", with_pattern}};
}

SortedJson pre_tokenizer_json(const TokenizerDefinition& definition) {
  SortedJson list = SortedJson::array();
  bool prefix_space = false;
  for (const SplitStep& step : definition.splits) {
    if (step.kind == SplitKind::kPrefixSpace) {
      prefix_space = true;  // importers let at most GPT-2's own pattern follow it
    } else if (step.kind == SplitKind::kMetaspace) {
      list.push_back({{"type", "Metaspace"},
                      {"replacement", step.pattern},
                      {"prepend_scheme", scheme_name(step.prepend)},
                      {"split", step.cut}});
    } else if (!prefix_space) {
      const char* kind = step.kind == SplitKind::kPattern ? "Regex" : "String";
      list.push_back({{"type", "Split"},
                      {"pattern", pattern_json(kind, step.pattern)},
                      {"behavior", behavior_name(step.behavior)},
                      {"invert", step.invert}});
    }
  }
  const bool own_pattern = prefix_space && definition.splits.back().kind == SplitKind::kPattern;
  if (definition.byte_level) list.push_back(byte_level_json(prefix_space, own_pattern));
  if (list.empty()) return nullptr;
  return {{"type", "Sequence"}, {"pretokenizers", std::move(list)}};
}

SortedJson decoder_json(const TokenizerDefinition& definition) {
  if (definition.byte_level) return byte_level_json(true, true);
  SortedJson list = SortedJson::array();
  list.push_back(replace_json(pattern_json("String", std::string(kSpaceMark)), " "));
  list.push_back({{"type", "ByteFallback"}});
  list.push_back({{"type", "Fuse"}});
  if (definition.strip_first_space)
    list.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(list)}};
}

SortedJson post_processor_json(const TokenizerDefinition& definition) {
  if (definition.prefix.empty() && definition.suffix.empty()) return nullptr;
  SortedJson tokens = SortedJson::object();
  const auto special = [&](int32_t id, int type) -> SortedJson {
    const std::string& name = definition.pieces[id];
    tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    return {{"SpecialToken", {{"id", name}, {"type_id", type}}}};
  };
  SortedJson single = SortedJson::array();
  SortedJson pair = SortedJson::array();
  for (const auto& [name, type, in_single] :
       {std::tuple{"A", 0, true}, std::tuple{"B", 1, false}}) {
    SortedJson items = SortedJson::array();
    for (const int32_t id : definition.prefix) items.push_back(special(id, type));
    items.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    for (const int32_t id : definition.suffix) items.push_back(special(id, type));
    if (in_single) single = items;
    pair.insert(pair.end(), items.begin(), items.end());
  }
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(tokens)}};
}

SortedJson added_token_json(const AddedToken& token) {
  return {{"id", token.id},
          {"content", token.content},
          {"single_word", token.single_word},
          {"lstrip", token.left_strip},
          {"rstrip", token.right_strip},
          {"normalized", token.normalized},
          {"special", token.special}};
}

std::string with_spaces_for_marks(std::string text) {
  for (size_t at; (at = text.find(kSpaceMark)) != std::string::npos;)
    text.replace(at, kSpaceMark.size(), 1, ' ');
  return text;
}

// SentencePiece finds what the user defined by itself; elsewhere these are added tokens.
SortedJson added_tokens_json(const TokenizerDefinition& definition) {
  std::vector<AddedToken> tokens = definition.added;
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    if (definition.kinds[i] != PieceKind::kUserDefined || definition.model == ModelKind::kMergeBpe)
      continue;
    const auto id = static_cast<int32_t>(i);
    if (std::any_of(tokens.begin(), tokens.end(), [id](const AddedToken& t) { return t.id == id; }))
      continue;
    AddedToken token;
    token.id = id;
    token.content = with_spaces_for_marks(definition.pieces[i]);
    tokens.push_back(std::move(token));
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  SortedJson list = SortedJson::array();
  for (const AddedToken& token : tokens) list.push_back(added_token_json(token));
  return list;
}

using IdPairs = std::vector<std::pair<int32_t, int32_t>>;

// Every cut of every piece into two pieces, best score first: how SentencePiece's BPE is told as
// merges.
IdPairs merges_of_scores(const TokenizerDefinition& definition) {
  std::unordered_map<std::string_view, int32_t> ids;
  std::vector<int32_t> order;
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    if (definition.kinds[i] != PieceKind::kNormal) continue;
    ids.emplace(definition.pieces[i], static_cast<int32_t>(i));
    order.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return definition.scores[a] > definition.scores[b];
  });
  IdPairs merges;
  for (const int32_t id : order) {
    const std::string_view piece = definition.pieces[id];
    for (size_t at = valid_char_length(piece); at < piece.size();
         at += valid_char_length(piece.substr(at))) {
      const auto left = ids.find(piece.substr(0, at));
      const auto right = ids.find(piece.substr(at));
      if (left != ids.end() && right != ids.end()) merges.emplace_back(left->second, right->second);
    }
  }
  return merges;
}

SortedJson bpe_json(const TokenizerDefinition& definition) {
  SortedJson vocab = SortedJson::object();
  for (size_t i = 0; i < definition.pieces.size(); ++i) vocab[definition.pieces[i]] = i;
  SortedJson merges = SortedJson::array();
  const IdPairs pairs =
      definition.model == ModelKind::kScoreBpe ? merges_of_scores(definition) : definition.merges;
  for (const auto& [left, right] : pairs)
    merges.push_back({definition.pieces[left], definition.pieces[right]});
  SortedJson unknown = nullptr;
  if (definition.unknown >= 0) unknown = definition.pieces[definition.unknown];
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", definition.fuse_unknown},
          {"byte_fallback", definition.byte_fallback},
          {"ignore_merges", definition.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

SortedJson unigram_json(const TokenizerDefinition& definition) {
  SortedJson vocab = SortedJson::array();
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    const bool wanted =
        definition.kinds[i] == PieceKind::kNormal || definition.kinds[i] == PieceKind::kUnknown;
    vocab.push_back({definition.pieces[i], wanted ? definition.scores[i] : kUnwantedScore});
  }
  return {{"type", "Unigram"},
          {"unk_id", definition.unknown},
          {"byte_fallback", definition.byte_fallback},
          {"vocab", std::move(vocab)}};
}

}  // namespace

std::string tokenizer_json(const TokenizerDefinition& definition) {
  const SortedJson root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens_json(definition)},
      {"normalizer", normalizer_json(definition)},
      {"pre_tokenizer", pre_tokenizer_json(definition)},
      {"post_processor", post_processor_json(definition)},
      {"decoder", decoder_json(definition)},
      {"model",
       definition.model == ModelKind::kUnigram ? unigram_json(definition) : bpe_json(definition)}};
  return root.dump();
}

}  // namespace spear
