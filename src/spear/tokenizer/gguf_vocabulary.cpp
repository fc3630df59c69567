#include "spear/tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_map>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/piece_ids.h"
#include "spear/tokenizer/split_patterns.h"

namespace spear {
namespace {

// How a name in tokenizer.ggml.pre cuts text, and what else the family does.
struct Family {
  std::string_view name;
  std::string_view pattern;
  bool single_digits;  // each digit is a word, before the pattern is tried
  bool compose;        // NFC first
  bool ignore_merges;
  bool adds_bos;  // where tokenizer.ggml.add_bos_token is absent
};

constexpr std::array kFamilies = {
    Family{"gpt-2", kGpt2Pattern, false, false, false, false},
    Family{"gpt2", kGpt2Pattern, false, false, false, false},
    Family{"phi-2", kGpt2Pattern, false, false, false, false},
    Family{"smollm", kGpt2Pattern, true, false, false, false},
    Family{"starcoder", kGpt2Pattern, true, false, false, false},
    Family{"refact", kGpt2Pattern, true, false, false, false},
    Family{"llama-bpe", kLlama3Pattern, false, false, true, true},
    Family{"llama3", kLlama3Pattern, false, false, true, true},
    Family{"llama-v3", kLlama3Pattern, false, false, true, true},
    Family{"qwen2", kQwen2Pattern, false, true, false, false},
};

class Importer {
 public:
  Importer(const GgufVocabulary& vocabulary, std::string_view source)
      : in_(vocabulary), source_(source) {}

  Result<TokenizerDefinition> run() {
    Result<void> done = tokens();
    if (done) done = special_ids();
    if (done) done = in_.model == "gpt2" ? byte_level() : sentencepiece();
    if (!done) return tl::unexpected(done.error());
    out_.chat_template = in_.chat_template;
    if (Result<void> good = check_definition(out_, source_); !good)
      return tl::unexpected(good.error());
    return std::move(out_);
  }

 private:
  template <class... Args>
  Result<void> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...)));
  }

  // Models pad their embedding with rows that name the same unused text; those repeat legally.
  Result<void> tokens() {
    if (in_.model != "gpt2" && in_.model != "llama" && in_.model != "t5")
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: tokenizer.ggml.model is {}; spear reads gpt2, llama and t5",
                              source_, printable(in_.model, 40)));
    if (!in_.token_type.empty() && in_.token_type.size() != in_.tokens.size())
      return bad("tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
                 in_.token_type.size(), in_.tokens.size());
    out_.pieces = in_.tokens;
    out_.kinds.assign(in_.tokens.size(), PieceKind::kNormal);
    for (size_t i = 0; i < in_.token_type.size(); ++i) {
      const int32_t type = in_.token_type[i];
      if (type < 1 || type > 6)
        return bad("tokenizer.ggml.token_type[{}] is {}, not 1 to 6", i, type);
      out_.kinds[i] = static_cast<PieceKind>(type);
    }
    return {};
  }

  Result<void> special_ids() {
    for (const auto& [name, id, target] :
         {std::tuple{"bos", in_.bos_token_id, &out_.bos},
          std::tuple{"eos", in_.eos_token_id, &out_.eos},
          std::tuple{"unknown", in_.unknown_token_id, &out_.unknown},
          std::tuple{"padding", in_.padding_token_id, &out_.padding}}) {
      if (!id) continue;
      if (*id == std::numeric_limits<uint32_t>::max()) continue;  // written for "none"
      if (*id < 0 || *id >= static_cast<int64_t>(in_.tokens.size()))
        return bad("tokenizer.ggml.{}_token_id is {}, outside the vocabulary of {}", name, *id,
                   in_.tokens.size());
      *target = static_cast<int32_t>(*id);
    }
    return {};
  }

  Result<void> byte_level() {
    const auto* family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                      [this](const Family& f) { return f.name == in_.pre; });
    if (family == kFamilies.end())
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: tokenizer.ggml.pre is {}; spear knows gpt-2, smollm, "
                              "starcoder, refact, llama-bpe and qwen2",
                              source_, printable(in_.pre, 40)));
    out_.model = ModelKind::kMergeBpe;
    out_.byte_level = true;
    out_.ignore_merges = family->ignore_merges;
    out_.unknown = -1;  // every byte has a piece; files name an unknown token for form's sake
    if (family->compose)
      out_.normalizer.push_back({.kind = NormalizerKind::kNfc, .pattern = {}, .content = {}});
    if (family->single_digits) out_.splits.push_back(pattern_step(kDigitPattern));
    out_.splits.push_back(pattern_step(family->pattern));
    add_tokens(true);
    around(family->adds_bos, false);
    return read_merges();
  }

  Result<void> sentencepiece() {
    const bool unigram = in_.model == "t5";
    out_.model = unigram ? ModelKind::kUnigram : ModelKind::kScoreBpe;
    out_.fuse_unknown = true;
    out_.single_precision = true;
    if (out_.unknown < 0) find_unknown();
    if (in_.scores.size() != in_.tokens.size())
      return bad("tokenizer.ggml.scores has {} entries, tokenizer.ggml.tokens {}",
                 in_.scores.size(), in_.tokens.size());
    out_.scores.assign(in_.scores.begin(), in_.scores.end());
    out_.byte_fallback =
        std::find(out_.kinds.begin(), out_.kinds.end(), PieceKind::kByte) != out_.kinds.end();
    NormalizerStep step;
    step.kind = NormalizerKind::kSentencePiece;
    step.pattern = in_.precompiled_charsmap;
    step.dummy_prefix = in_.add_space_prefix.value_or(true);
    step.squeeze_spaces = in_.remove_extra_whitespaces.value_or(false);
    step.escape_spaces = true;
    out_.strip_first_space = step.dummy_prefix;
    out_.normalizer.push_back(std::move(step));
    add_tokens(false);
    around(!unigram, unigram);
    return {};
  }

  void find_unknown() {
    const auto found = std::find(out_.kinds.begin(), out_.kinds.end(), PieceKind::kUnknown);
    if (found != out_.kinds.end()) out_.unknown = static_cast<int32_t>(found - out_.kinds.begin());
  }

  // Control tokens are special; what the user defined is a token wherever it stands.
  // SentencePiece's models match the latter themselves.
  void add_tokens(bool with_user_defined) {
    for (size_t i = 0; i < out_.pieces.size(); ++i) {
      const bool control =
          out_.kinds[i] == PieceKind::kControl || out_.kinds[i] == PieceKind::kUnknown;
      const bool user_defined = out_.kinds[i] == PieceKind::kUserDefined && with_user_defined;
      if ((!control && !user_defined) || out_.pieces[i].empty()) continue;
      AddedToken token;
      token.id = static_cast<int32_t>(i);
      token.content = out_.pieces[i];
      token.special = control;
      out_.added.push_back(std::move(token));
    }
  }

  void around(bool bos_by_default, bool eos_by_default) {
    if (in_.add_bos_token.value_or(bos_by_default) && out_.bos >= 0)
      out_.prefix.push_back(out_.bos);
    if (in_.add_eos_token.value_or(eos_by_default) && out_.eos >= 0)
      out_.suffix.push_back(out_.eos);
  }

  Result<void> read_merges() {
    std::unordered_map<std::string_view, int32_t> ids;
    ids.reserve(out_.pieces.size());
    for (size_t i = 0; i < out_.pieces.size(); ++i)
      ids.emplace(out_.pieces[i], static_cast<int32_t>(i));
    out_.merges.reserve(in_.merges.size());
    for (size_t i = 0; i < in_.merges.size(); ++i) {
      const std::string_view merge = in_.merges[i];
      const size_t space = merge.find(' ', 1);
      if (space == std::string_view::npos)
        return bad("tokenizer.ggml.merges[{}] is {}, not two tokens", i, printable(merge));
      const auto left = ids.find(merge.substr(0, space));
      const auto right = ids.find(merge.substr(space + 1));
      if (left == ids.end() || right == ids.end())
        return bad("tokenizer.ggml.merges[{}] is {}, which names an unknown token", i,
                   printable(merge));
      out_.merges.emplace_back(left->second, right->second);
    }
    return {};
  }

  static SplitStep pattern_step(std::string_view pattern) {
    SplitStep step;
    step.pattern = pattern;
    return step;
  }

  const GgufVocabulary& in_;
  std::string_view source_;
  TokenizerDefinition out_;
};

}  // namespace

Result<TokenizerDefinition> definition_from_gguf(const GgufVocabulary& vocabulary,
                                                 std::string_view source) {
  return Importer(vocabulary, source).run();
}

}  // namespace spear
