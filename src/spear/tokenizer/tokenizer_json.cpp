#include "spear/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/base64.h"
#include "spear/tokenizer/json_reader.h"
#include "spear/tokenizer/split_patterns.h"

namespace spear {
namespace {

constexpr int64_t kMaxId = (int64_t{1} << 22) - 1;

class Importer {
 public:
  Importer(const SortedJson& root, std::string_view source)
      : root_(root, source, ""), source_(source) {}

  TokenizerDefinition run() {
    model(root_.at("model"));
    if (const auto added = root_.find("added_tokens")) added_tokens(*added);
    require_all_ids();
    if (const auto step = root_.find("normalizer")) normalizer(*step);
    if (const auto step = root_.find("pre_tokenizer")) pre_tokenizer(*step);
    if (const auto step = root_.find("post_processor")) post_processor(*step);
    if (const auto step = root_.find("decoder")) decoder(*step);
    return std::move(out_);
  }

 private:
  [[noreturn]] void bad(const std::string& what) const {
    throw Failure(ErrorCode::kBadFile, fmt::format("{}: {}", source_, what));
  }

  // --- the model

  void model(const JsonReader& model) {
    const bool pairs = model.at("vocab").value().is_array();
    const std::string type = model.text_or("type", pairs ? "Unigram" : "BPE");
    out_.byte_fallback = model.boolean_or("byte_fallback", false);
    if (type == "BPE") {
      bpe(model);
    } else if (type == "Unigram") {
      unigram(model);
    } else {
      model.unsupported(fmt::format("has the type {}", printable(type)));
    }
  }

  void bpe(const JsonReader& model) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.text_or(key, "").empty()) model.unsupported(fmt::format("has a {}", key));
    if (const auto dropout = model.find("dropout"); dropout && dropout->number() != 0)
      model.unsupported("has a dropout");
    out_.model = ModelKind::kMergeBpe;
    out_.fuse_unknown = model.boolean_or("fuse_unk", false);
    out_.ignore_merges = model.boolean_or("ignore_merges", false);
    const JsonReader vocab = model.at("vocab");
    if (!vocab.value().is_object()) vocab.expected("an object");
    for (const auto& [piece, id] : vocab.value().items())
      put_piece(piece,
                JsonReader(id, source_, "model.vocab[" + printable(piece) + "]").integer(0, kMaxId),
                PieceKind::kNormal);
    merges(model.at("merges"));
    if (const auto unknown = model.find("unk_token")) out_.unknown = require_piece(*unknown);
  }

  void merges(const JsonReader& merges) {
    const size_t count = merges.array_size();
    out_.merges.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const SortedJson& merge = merges.value()[i];
      std::string left;
      std::string right;
      if (merge.is_string()) {
        const std::string text = merge.get<std::string>();
        const size_t space = text.find(' ', 1);
        left = text.substr(0, space);
        if (space != std::string::npos) right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      }
      if (left.empty() || right.empty()) merges.at(i).expected("two tokens");
      const auto first = ids_.find(left);
      const auto second = ids_.find(right);
      if (first == ids_.end() || second == ids_.end())
        bad(fmt::format("model.merges[{}] joins {} and {}, of which one is no token", i,
                        printable(left), printable(right)));
      out_.merges.emplace_back(first->second, second->second);
    }
  }

  void unigram(const JsonReader& model) {
    out_.model = ModelKind::kUnigram;
    out_.fuse_unknown = true;
    const JsonReader vocab = model.at("vocab");
    const size_t count = vocab.array_size();
    if (count > static_cast<size_t>(kMaxId))
      vocab.expected(fmt::format("at most {} tokens", kMaxId));
    for (size_t i = 0; i < count; ++i) {
      const JsonReader entry = vocab.at(i);
      if (entry.array_size() != 2) entry.expected("a token and its score");
      put_piece(entry.at(size_t{0}).text(), static_cast<int64_t>(i), PieceKind::kNormal);
      out_.scores.push_back(entry.at(1).number());
    }
    if (const auto unknown = model.find("unk_id")) {
      out_.unknown = static_cast<int32_t>(unknown->integer(0, kMaxId));
      if (static_cast<size_t>(out_.unknown) < count) out_.kinds[out_.unknown] = PieceKind::kUnknown;
    }
  }

  void put_piece(const std::string& piece, int64_t id, PieceKind kind) {
    if (static_cast<size_t>(id) >= out_.pieces.size()) {
      out_.pieces.resize(id + 1);
      out_.kinds.resize(id + 1, kNoPiece);
    }
    if (out_.kinds[id] != kNoPiece)
      bad(fmt::format("the id {} belongs to both {} and {}", id, printable(out_.pieces[id]),
                      printable(piece)));
    out_.pieces[id] = piece;
    out_.kinds[id] = kind;
    if (!ids_.emplace(piece, static_cast<int32_t>(id)).second)
      bad(fmt::format("the token {} has two ids", printable(piece)));
  }

  int32_t require_piece(const JsonReader& name) const {
    const auto found = ids_.find(name.text());
    if (found == ids_.end())
      bad(fmt::format("{} is {}, which is no token", name.path(), printable(name.text())));
    return found->second;
  }

  // --- added tokens

  void added_tokens(const JsonReader& list) {
    for (size_t i = 0; i < list.array_size(); ++i) {
      const JsonReader entry = list.at(i);
      AddedToken token;
      token.id = static_cast<int32_t>(entry.at("id").integer(0, kMaxId));
      token.content = entry.at("content").text();
      token.special = entry.boolean_or("special", false);
      token.normalized = entry.boolean_or("normalized", !token.special);
      token.left_strip = entry.boolean_or("lstrip", false);
      token.right_strip = entry.boolean_or("rstrip", false);
      token.single_word = entry.boolean_or("single_word", false);
      const auto known = ids_.find(token.content);
      if (known == ids_.end()) {
        put_piece(token.content, token.id,
                  token.special ? PieceKind::kControl : PieceKind::kUserDefined);
      } else if (known->second != token.id) {
        bad(fmt::format("the added token {} has the id {}, the vocabulary gives it {}",
                        printable(token.content), token.id, known->second));
      }
      out_.added.push_back(std::move(token));
    }
    out_.scores.resize(out_.model == ModelKind::kUnigram ? out_.pieces.size() : 0);
  }

  void require_all_ids() const {
    const auto gap = std::find(out_.kinds.begin(), out_.kinds.end(), kNoPiece);
    if (gap != out_.kinds.end())
      bad(fmt::format("no token has the id {}, though ids reach {}", gap - out_.kinds.begin(),
                      out_.kinds.size() - 1));
  }

  // --- normalizers

  void normalizer(const JsonReader& step) {
    const std::string type = step.type();
    NormalizerStep out;
    if (type == "Sequence") {
      const JsonReader list = step.at("normalizers");
      for (size_t i = 0; i < list.array_size(); ++i) normalizer(list.at(i));
      return;
    }
    if (type == "NFC") {
      out.kind = NormalizerKind::kNfc;
    } else if (type == "NFD") {
      out.kind = NormalizerKind::kNfd;
    } else if (type == "NFKC") {
      out.kind = NormalizerKind::kNfkc;
    } else if (type == "NFKD") {
      out.kind = NormalizerKind::kNfkd;
    } else if (type == "Prepend") {
      out.kind = NormalizerKind::kPrepend;
      out.content = step.at("prepend").text();
    } else if (type == "Strip") {
      out.kind = NormalizerKind::kStrip;
      out.left = step.boolean_or("strip_left", true);
      out.right = step.boolean_or("strip_right", true);
    } else if (type == "Replace") {
      const JsonReader pattern = step.at("pattern");
      const bool literal = pattern.find("String").has_value();
      out.kind = literal ? NormalizerKind::kReplace : NormalizerKind::kReplacePattern;
      out.pattern = pattern.at(literal ? "String" : "Regex").text();
      out.content = step.at("content").text();
    } else if (type == "Precompiled") {
      const JsonReader map = step.at("precompiled_charsmap");
      const std::optional<std::string> blob = base64_decode(map.text());
      if (!blob) map.expected("base64");
      if (blob->empty()) return;  // no rules
      out.kind = NormalizerKind::kCharsmap;
      out.pattern = *blob;
    } else {
      step.unsupported(fmt::format("has the type {}", printable(type)));
    }
    out_.normalizer.push_back(std::move(out));
  }

  // --- pre-tokenizers

  void pre_tokenizer(const JsonReader& step) {
    const std::string type = step.type();
    if (out_.byte_level) step.unsupported("stands after ByteLevel");
    if (type == "Sequence") {
      const JsonReader list = step.at("pretokenizers");
      for (size_t i = 0; i < list.array_size(); ++i) pre_tokenizer(list.at(i));
    } else if (type == "Split") {
      split(step);
    } else if (type == "Digits") {
      SplitStep out;
      out.pattern = kDigitPattern;
      out.behavior = step.boolean_or("individual_digits", false) ? SplitBehavior::kIsolated
                                                                 : SplitBehavior::kContiguous;
      out_.splits.push_back(std::move(out));
    } else if (type == "ByteLevel") {
      byte_level(step);
    } else if (type == "Metaspace") {
      metaspace(step);
    } else {
      step.unsupported(fmt::format("has the type {}", printable(type)));
    }
  }

  void split(const JsonReader& step) {
    SplitStep out;
    const JsonReader pattern = step.at("pattern");
    const bool literal = pattern.find("String").has_value();
    out.kind = literal ? SplitKind::kLiteral : SplitKind::kPattern;
    out.pattern = pattern.at(literal ? "String" : "Regex").text();
    out.invert = step.boolean_or("invert", false);
    const std::string behavior = step.at("behavior").text();
    for (const auto& [name, value] : kBehaviors)
      if (name == behavior) {
        out.behavior = value;
        out_.splits.push_back(std::move(out));
        return;
      }
    step.unsupported(fmt::format("has the behavior {}", printable(behavior)));
  }

  void byte_level(const JsonReader& step) {
    out_.byte_level = true;
    SplitStep out;
    if (step.boolean_or("add_prefix_space", true)) {
      out.kind = SplitKind::kPrefixSpace;
      out_.splits.push_back(out);
    }
    if (!step.boolean_or("use_regex", true)) return;
    out.kind = SplitKind::kPattern;
    out.pattern = kGpt2Pattern;
    out_.splits.push_back(std::move(out));
  }

  void metaspace(const JsonReader& step) {
    SplitStep out;
    out.kind = SplitKind::kMetaspace;
    out.pattern = step.text_or("replacement", kSpaceMark);
    out.cut = step.boolean_or("split", true);
    const std::string scheme = step.text_or(
        "prepend_scheme", step.boolean_or("add_prefix_space", true) ? "always" : "never");
    if (scheme == "always") {
      out.prepend = PrependScheme::kAlways;
    } else if (scheme == "first") {
      out.prepend = PrependScheme::kFirst;
    } else if (scheme != "never") {
      step.unsupported(fmt::format("has the prepend scheme {}", printable(scheme)));
    }
    out_.splits.push_back(std::move(out));
  }

  // --- what stands around a text

  void post_processor(const JsonReader& step) {
    const std::string type = step.type();
    if (type == "Sequence") {
      const JsonReader list = step.at("processors");
      for (size_t i = 0; i < list.array_size(); ++i) post_processor(list.at(i));
    } else if (type == "TemplateProcessing") {
      template_processing(step);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      out_.prefix.push_back(static_cast<int32_t>(step.at("cls").at(1).integer(0, kMaxId)));
      out_.suffix.push_back(static_cast<int32_t>(step.at("sep").at(1).integer(0, kMaxId)));
    } else if (type != "ByteLevel") {  // ByteLevel only trims the offsets of words
      step.unsupported(fmt::format("has the type {}", printable(type)));
    }
  }

  void template_processing(const JsonReader& step) {
    const JsonReader single = step.at("single");
    bool text_seen = false;
    for (size_t i = 0; i < single.array_size(); ++i) {
      const JsonReader item = single.at(i);
      if (item.find("Sequence")) {
        if (std::exchange(text_seen, true)) single.unsupported("puts the text twice");
        continue;
      }
      const std::string name = item.at("SpecialToken").at("id").text();
      const JsonReader ids = step.at("special_tokens").at(name).at("ids");
      std::vector<int32_t>& list = text_seen ? out_.suffix : out_.prefix;
      for (size_t k = 0; k < ids.array_size(); ++k)
        list.push_back(static_cast<int32_t>(ids.at(k).integer(0, kMaxId)));
    }
    if (!text_seen) single.unsupported("leaves the text out");
  }

  // --- decoders

  void decoder(const JsonReader& step) {
    const std::string type = step.type();
    if (type == "Sequence") {
      const JsonReader list = step.at("decoders");
      for (size_t i = 0; i < list.array_size(); ++i) decoder(list.at(i));
    } else if (type == "Strip") {
      out_.strip_first_space =
          step.text_or("content", " ") == " " && step.at("start").integer(0, 64) > 0;
    } else if (type == "Metaspace") {
      out_.strip_first_space =
          step.text_or("prepend_scheme",
                       step.boolean_or("add_prefix_space", true) ? "always" : "never") != "never";
    } else if (type != "ByteLevel" && type != "Replace" && type != "ByteFallback" &&
               type != "Fuse") {
      step.unsupported(fmt::format("has the type {}", printable(type)));
    }
  }

  static constexpr auto kNoPiece = static_cast<PieceKind>(0);
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};

  JsonReader root_;
  std::string_view source_;
  TokenizerDefinition out_;
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

Result<TokenizerDefinition> definition_from_json(std::string_view tokenizer_json,
                                                 std::string_view config, std::string_view source) {
  try {
    const SortedJson root = value_or_throw(parse_sorted_json(tokenizer_json, source));
    TokenizerDefinition definition = Importer(root, source).run();
    if (!config.empty()) apply_tokenizer_config(config, "tokenizer_config.json", definition);
    return definition;
  } catch (const Failure& failure) {
    return tl::unexpected(failure.error());
  }
}

}  // namespace spear
