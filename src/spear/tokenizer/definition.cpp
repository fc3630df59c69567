#include "spear/tokenizer/definition.h"

#include <cmath>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/piece_ids.h"
#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 22;
constexpr size_t kMaxMerges = size_t{1} << 24;
constexpr size_t kMaxPieceBytes = size_t{1} << 12;
constexpr size_t kMaxAddedBytes = 512;
constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxTemplateIds = 64;

class Checker {
 public:
  Checker(const TokenizerDefinition& definition, std::string_view source)
      : definition_(definition), source_(source) {}

  Result<void> run() const {
    for (const auto check : {&Checker::counts, &Checker::pieces, &Checker::scores, &Checker::merges,
                             &Checker::added, &Checker::ids, &Checker::bytes, &Checker::texts})
      if (Result<void> result = (this->*check)(); !result) return result;
    return {};
  }

 private:
  template <class... Args>
  Result<void> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...)));
  }

  Result<void> at_most(std::string_view what, size_t found, size_t limit) const {
    if (found > limit) return bad("{} {}; at most {} are allowed", found, what, limit);
    return {};
  }

  Result<void> counts() const {
    const TokenizerDefinition& d = definition_;
    if (d.pieces.empty()) return bad("the vocabulary has no tokens");
    if (d.kinds.size() != d.pieces.size())
      return bad("{} tokens but {} token types", d.pieces.size(), d.kinds.size());
    for (const auto& [what, found, limit] :
         {std::tuple{"tokens", d.pieces.size(), kMaxPieces},
          std::tuple{"merges", d.merges.size(), kMaxMerges},
          std::tuple{"added tokens", d.added.size(), kMaxPieces},
          std::tuple{"normalizer steps", d.normalizer.size(), kMaxSteps},
          std::tuple{"pre-tokenizer steps", d.splits.size(), kMaxSteps},
          std::tuple{"ids before every text", d.prefix.size(), kMaxTemplateIds},
          std::tuple{"ids after every text", d.suffix.size(), kMaxTemplateIds}})
      if (Result<void> result = at_most(what, found, limit); !result) return result;
    return {};
  }

  Result<void> pieces() const {
    std::unordered_map<std::string_view, size_t> seen;
    seen.reserve(definition_.pieces.size());
    for (size_t i = 0; i < definition_.pieces.size(); ++i) {
      const std::string& piece = definition_.pieces[i];
      const auto kind = static_cast<int>(definition_.kinds[i]);
      if (kind < 1 || kind > 6) return bad("token {} has the unknown type {}", i, kind);
      if (piece.size() > kMaxPieceBytes)
        return bad("token {} has {} bytes; at most {} are allowed", i, piece.size(),
                   kMaxPieceBytes);
      if (!is_valid_utf8(piece)) return bad("token {} is not valid UTF-8", i);
      if (piece.empty() && definition_.kinds[i] == PieceKind::kNormal)
        return bad("token {} is empty", i);
      if (const auto [first, fresh] = seen.emplace(piece, i); !fresh && !piece.empty())
        return bad("the token {} stands twice, as {} and {}", printable(piece), first->second, i);
    }
    return {};
  }

  Result<void> scores() const {
    if (definition_.model == ModelKind::kMergeBpe) return {};
    if (definition_.scores.size() != definition_.pieces.size())
      return bad("{} tokens but {} scores", definition_.pieces.size(), definition_.scores.size());
    for (size_t i = 0; i < definition_.scores.size(); ++i)
      if (!std::isfinite(definition_.scores[i]))
        return bad("the score of token {} is {}, not a finite number", i, definition_.scores[i]);
    return {};
  }

  Result<void> merges() const {
    std::unordered_set<std::string_view> pieces(definition_.pieces.begin(),
                                                definition_.pieces.end());
    std::string joint;
    for (size_t i = 0; i < definition_.merges.size(); ++i) {
      const auto [left, right] = definition_.merges[i];
      if (!is_id(left) || !is_id(right))
        return bad("merge {} joins the ids {} and {}, outside the vocabulary of {}", i, left, right,
                   definition_.pieces.size());
      joint.assign(definition_.pieces[left]).append(definition_.pieces[right]);
      if (!pieces.contains(joint))
        return bad("merge {} makes {}, which is no token", i, printable(joint));
    }
    return {};
  }

  Result<void> added() const {
    std::unordered_set<std::string_view> contents;
    for (const AddedToken& token : definition_.added) {
      if (!is_id(token.id))
        return bad("the added token {} has the id {}, outside the vocabulary of {}",
                   printable(token.content), token.id, definition_.pieces.size());
      if (token.content.empty()) return bad("the added token {} is empty", token.id);
      if (token.content.size() > kMaxAddedBytes)
        return bad("the added token {} has {} bytes; at most {} are allowed", token.id,
                   token.content.size(), kMaxAddedBytes);
      if (!is_valid_utf8(token.content))
        return bad("the added token {} is not valid UTF-8", token.id);
      if (!contents.insert(token.content).second)
        return bad("the added token {} stands twice", printable(token.content));
    }
    return {};
  }

  Result<void> ids() const {
    for (const auto& [name, id] :
         {std::pair{"begin-of-text", definition_.bos}, std::pair{"end-of-text", definition_.eos},
          std::pair{"unknown", definition_.unknown}, std::pair{"padding", definition_.padding}})
      if (id != -1 && !is_id(id))
        return bad("the {} token has the id {}, outside the vocabulary of {}", name, id,
                   definition_.pieces.size());
    for (const auto* list : {&definition_.prefix, &definition_.suffix})
      for (const int32_t id : *list)
        if (!is_id(id))
          return bad("the id {} put around every text is outside the vocabulary of {}", id,
                     definition_.pieces.size());
    return {};
  }

  Result<void> bytes() const {
    if (definition_.model == ModelKind::kUnigram && definition_.unknown < 0)
      return bad("a unigram vocabulary without an unknown token");
    return {};
  }

  Result<void> texts() const {
    for (const SplitStep& step : definition_.splits)
      if (step.pattern.empty() && step.kind == SplitKind::kMetaspace)
        return bad("the pre-tokenizer Metaspace has no replacement");
    if (!is_valid_utf8(definition_.chat_template))
      return bad("the chat template is not valid UTF-8");
    return {};
  }

  [[nodiscard]] bool is_id(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < definition_.pieces.size();
  }

  const TokenizerDefinition& definition_;
  std::string_view source_;
};

}  // namespace

Result<void> check_definition(const TokenizerDefinition& definition, std::string_view source) {
  return Checker(definition, source).run();
}

}  // namespace spear
