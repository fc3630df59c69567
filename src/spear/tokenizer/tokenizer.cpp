#include "spear/tokenizer/tokenizer.h"

#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "spear/tokenizer/added_tokens.h"
#include "spear/tokenizer/bpe.h"
#include "spear/tokenizer/byte_alphabet.h"
#include "spear/tokenizer/model.h"
#include "spear/tokenizer/normalize.h"
#include "spear/tokenizer/piece_ids.h"
#include "spear/tokenizer/pretokenize.h"
#include "spear/tokenizer/sentencepiece_model.h"
#include "spear/tokenizer/tokenizer_json.h"
#include "spear/tokenizer/unigram.h"

namespace spear {
namespace {

constexpr size_t kCachedWordBytes = 64;
constexpr size_t kCachedWords = size_t{1} << 17;

// Tokens after which a chat model hands the turn back.
constexpr std::array<std::string_view, 5> kEndOfTurn = {
    "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>"};

// The bytes an id stands for in the middle of a text.
std::string bytes_of_id(const TokenizerDefinition& definition, size_t id) {
  const std::string& piece = definition.pieces[id];
  const PieceKind kind = definition.kinds[id];
  if (definition.byte_level) {
    if (kind != PieceKind::kNormal) return piece;
    return bytes_of_piece(piece).value_or(piece);
  }
  if (kind == PieceKind::kControl) return piece;
  if (const int byte = byte_of_piece(piece); byte >= 0 && definition.byte_fallback)
    return std::string(1, static_cast<char>(byte));
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    const size_t mark = piece.find(kSpaceMark, at);
    text.append(piece, at, mark - at);
    if (mark == std::string::npos) break;
    text.push_back(' ');
    at = mark + kSpaceMark.size();
  }
  return text;
}

std::unique_ptr<TokenModel> build_model(const TokenizerDefinition& definition) {
  if (definition.model == ModelKind::kUnigram) return std::make_unique<UnigramModel>(definition);
  return std::make_unique<BpeModel>(definition);
}

std::vector<std::string> user_defined_pieces(const TokenizerDefinition& definition) {
  std::vector<std::string> pieces;
  for (size_t i = 0; i < definition.pieces.size(); ++i)
    if (definition.kinds[i] == PieceKind::kUserDefined && definition.model != ModelKind::kMergeBpe)
      pieces.push_back(definition.pieces[i]);
  return pieces;
}

}  // namespace

struct Tokenizer::Built {
  TokenizerDefinition definition;
  Normalizer normalizer;
  PreTokenizer splitter;
  AddedTokens raw_tokens;         // matched before normalization
  AddedTokens normalized_tokens;  // and after it
  std::unique_ptr<TokenModel> model;
  std::vector<std::string> bytes;  // by id
  std::vector<bool> special;       // by id
  std::unordered_map<std::string_view, int32_t> ids;
  std::vector<int32_t> stop_ids;

  Built(TokenizerDefinition given, Normalizer with_normalizer, PreTokenizer with_splitter)
      : definition(std::move(given)),
        normalizer(std::move(with_normalizer)),
        splitter(std::move(with_splitter)),
        raw_tokens(definition.added, false),
        normalized_tokens(normalized_added(), true),
        model(build_model(definition)) {
    special.resize(definition.pieces.size());
    for (const AddedToken& token : definition.added) special[token.id] = token.special;
    for (size_t i = 0; i < definition.pieces.size(); ++i) {
      bytes.push_back(bytes_of_id(definition, i));
      ids.emplace(definition.pieces[i], static_cast<int32_t>(i));
    }
    for (const AddedToken& token : definition.added) {
      bytes[token.id] = token.content;
      ids.insert_or_assign(token.content, token.id);
    }
    find_stop_ids();
  }

  // Tokens matched after normalization are themselves normalized.
  [[nodiscard]] std::vector<AddedToken> normalized_added() const {
    std::vector<AddedToken> tokens = definition.added;
    for (AddedToken& token : tokens)
      if (token.normalized) token.content = normalizer.apply(token.content);
    return tokens;
  }

  void find_stop_ids() {
    if (definition.eos >= 0) stop_ids.push_back(definition.eos);
    for (const std::string_view text : kEndOfTurn) {
      const auto found = ids.find(text);
      if (found != ids.end() && special[found->second] && found->second != definition.eos)
        stop_ids.push_back(found->second);
    }
  }

  void require_id(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= bytes.size())
      throw Failure(
          ErrorCode::kUsage,
          fmt::format("the token id {} is outside the vocabulary of {}", id, bytes.size()));
  }
};

namespace {

// The words of one call of encode() that were already seen, with their ids. The views outlive the
// call's texts.
class WordCache {
 public:
  WordCache(const TokenModel& model, std::vector<int32_t>& out) : model_(model), out_(out) {}

  void encode(std::string_view word) {
    if (word.size() > kCachedWordBytes) return model_.encode(word, out_);
    if (const auto found = seen_.find(word); found != seen_.end()) {
      const auto begin = out_.begin() + static_cast<ptrdiff_t>(found->second.begin);
      ids_.assign(begin, begin + static_cast<ptrdiff_t>(found->second.count));
      out_.insert(out_.end(), ids_.begin(), ids_.end());
      return;
    }
    const size_t begin = out_.size();
    model_.encode(word, out_);
    if (seen_.size() < kCachedWords) seen_.emplace(word, Place{begin, out_.size() - begin});
  }

 private:
  struct Place {
    size_t begin;  // in out_, where the word was first written
    size_t count;
  };
  const TokenModel& model_;
  std::vector<int32_t>& out_;
  std::vector<int32_t> ids_;
  std::unordered_map<std::string_view, Place> seen_;
};

// Words of a SentencePiece text without a pre-tokenizer, cut where no piece can reach across.
template <class Visit>
void cut_at_space_marks(std::string_view text, Visit&& visit) {
  size_t begin = 0;
  bool in_marks = true;
  for (size_t at = 0; at < text.size();) {
    const bool mark = text.substr(at).starts_with(kSpaceMark);
    if (mark && !in_marks) {
      visit(text.substr(begin, at - begin));
      begin = at;
    }
    in_marks = mark;
    at += mark ? kSpaceMark.size() : 1;
  }
  if (begin < text.size()) visit(text.substr(begin));
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Built> built) : built_(std::move(built)) {}

Result<Tokenizer> Tokenizer::from_definition(TokenizerDefinition definition,
                                             std::string_view source) {
  if (Result<void> good = check_definition(definition, source); !good)
    return tl::unexpected(good.error());
  Result<Normalizer> normalizer =
      Normalizer::build(definition.normalizer, user_defined_pieces(definition), source);
  if (!normalizer) return tl::unexpected(normalizer.error());
  Result<PreTokenizer> splitter = PreTokenizer::build(definition.splits, source);
  if (!splitter) return tl::unexpected(splitter.error());
  return Tokenizer(std::make_shared<const Built>(std::move(definition), std::move(*normalizer),
                                                 std::move(*splitter)));
}

Result<Tokenizer> Tokenizer::from_gguf(const GgufVocabulary& vocabulary, std::string_view source) {
  Result<TokenizerDefinition> definition = definition_from_gguf(vocabulary, source);
  if (!definition) return tl::unexpected(definition.error());
  return from_definition(std::move(*definition), source);
}

Result<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json, std::string_view config,
                                       std::string_view source) {
  Result<TokenizerDefinition> definition = definition_from_json(tokenizer_json, config, source);
  if (!definition) return tl::unexpected(definition.error());
  return from_definition(std::move(*definition), source);
}

Result<Tokenizer> Tokenizer::from_sentencepiece(std::string_view model, std::string_view config,
                                                std::string_view source) {
  Result<TokenizerDefinition> definition = definition_from_sentencepiece(model, config, source);
  if (!definition) return tl::unexpected(definition.error());
  return from_definition(std::move(*definition), source);
}

std::string Tokenizer::serialize() const {
  return serialize_definition(built_->definition);
}

Result<Tokenizer> Tokenizer::parse(std::string_view section, std::string_view source) {
  Result<TokenizerDefinition> definition = parse_definition(section, source);
  if (!definition) return tl::unexpected(definition.error());
  return from_definition(std::move(*definition), source);
}

std::string Tokenizer::to_tokenizer_json() const {
  return tokenizer_json(built_->definition);
}

// One call of encode(): the prepared texts outlive the cache, whose keys are views of them.
class Tokenizer::Encoding {
 public:
  Encoding(const Built& built, std::string_view text, EncodeOptions options)
      : built_(built), text_(text), options_(options), cache_(*built.model, out_) {
    out_.reserve(text.size() / 3 + 8);
  }

  std::vector<int32_t> run() {
    if (options_.add_special) out_ = built_.definition.prefix;
    std::vector<TextPart> parts;
    built_.raw_tokens.split(text_, options_.parse_special, parts);
    for (const TextPart& part : parts) {
      if (part.id >= 0) {
        out_.push_back(part.id);
      } else {
        encode_raw(part.text);
      }
    }
    const std::vector<int32_t>& suffix = built_.definition.suffix;
    if (options_.add_special) out_.insert(out_.end(), suffix.begin(), suffix.end());
    return std::move(out_);
  }

 private:
  void encode_raw(std::string_view raw) {
    std::string_view prepared = raw;
    if (!built_.normalizer.empty())
      prepared = normalized_.emplace_back(built_.normalizer.apply(raw));
    std::vector<TextPart> parts;
    built_.normalized_tokens.split(prepared, options_.parse_special, parts);
    for (const TextPart& part : parts) {
      const bool at_start = raw.data() == text_.data() && part.text.data() == prepared.data();
      if (part.id >= 0) {
        out_.push_back(part.id);
      } else {
        encode_words(part.text, at_start);
      }
    }
  }

  void encode_words(std::string_view prepared, bool at_start) {
    built_.splitter.cut(prepared, at_start, words_);
    for (const std::string_view word : words_.list) {
      if (built_.model->cuts_at_space_marks()) {
        cut_at_space_marks(word, [this](std::string_view piece) { cache_.encode(piece); });
      } else {
        cache_.encode(word);
      }
    }
  }

  const Built& built_;
  std::string_view text_;
  EncodeOptions options_;
  std::vector<int32_t> out_;
  std::deque<std::string> normalized_;
  Words words_;
  WordCache cache_;
};

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  return Encoding(*built_, text, options).run();
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  bool at_start = built_->definition.strip_first_space;
  for (const int32_t id : ids) {
    built_->require_id(id);
    if (built_->special[id] && skip_special) continue;
    std::string_view bytes = built_->bytes[id];
    if (at_start && !built_->special[id]) {
      at_start = false;
      if (bytes.starts_with(' ')) bytes.remove_prefix(1);
    }
    out.append(bytes);
  }
  return out;
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(built_->bytes.size());
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  built_->require_id(id);
  return built_->bytes[id];
}

bool Tokenizer::is_special(int32_t id) const {
  return is_id(id) && built_->special[id];
}

int32_t Tokenizer::id_of(std::string_view piece) const {
  const auto found = built_->ids.find(piece);
  return found == built_->ids.end() ? -1 : found->second;
}

bool Tokenizer::strips_first_space() const {
  return built_->definition.strip_first_space;
}
int32_t Tokenizer::bos_id() const {
  return built_->definition.bos;
}
int32_t Tokenizer::eos_id() const {
  return built_->definition.eos;
}
int32_t Tokenizer::unknown_id() const {
  return built_->definition.unknown;
}
int32_t Tokenizer::padding_id() const {
  return built_->definition.padding;
}
const std::vector<int32_t>& Tokenizer::stop_ids() const {
  return built_->stop_ids;
}
const std::string& Tokenizer::chat_template() const {
  return built_->definition.chat_template;
}
const TokenizerDefinition& Tokenizer::definition() const {
  return built_->definition;
}

}  // namespace spear
