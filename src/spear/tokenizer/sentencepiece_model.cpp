#include "spear/tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "spear/tokenizer/json_reader.h"
#include "spear/tokenizer/protobuf.h"
#include "spear/tokenizer/tokenizer_json.h"

namespace spear {
namespace {

using Field = ProtobufReader::Field;

constexpr uint32_t kVarint = 0;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFloat = 5;
constexpr size_t kMaxPieces = size_t{1} << 22;

// Field numbers and defaults are those of sentencepiece_model.proto.
class Importer {
 public:
  explicit Importer(std::string_view source) : source_(source) {}

  TokenizerDefinition run(std::string_view model) {
    step_.kind = NormalizerKind::kSentencePiece;
    step_.dummy_prefix = step_.squeeze_spaces = step_.escape_spaces = true;
    ProtobufReader message(model, source_, "model");
    for (Field field; message.next(field);) {
      if (field.number > 3) continue;
      message.require(field, kBytes);
      if (field.number == 1) piece(field.bytes);
      if (field.number == 2) trainer(field.bytes);
      if (field.number == 3) normalizer(field.bytes);
    }
    finish();
    return std::move(out_);
  }

 private:
  void piece(std::string_view bytes) {
    std::string text;
    float score = 0;
    uint64_t type = 1;
    ProtobufReader message(bytes, source_, "piece");
    for (Field field; message.next(field);) {
      if (field.number > 3) continue;
      message.require(field, field.number == 1 ? kBytes : field.number == 2 ? kFloat : kVarint);
      if (field.number == 1) text = field.bytes;
      if (field.number == 2) score = field.real();
      if (field.number == 3) type = field.value;
    }
    if (type < 1 || type > 6)
      throw Failure(ErrorCode::kBadFile, fmt::format("{}: piece {} has the unknown type {}",
                                                     source_, out_.pieces.size(), type));
    if (out_.pieces.size() >= kMaxPieces)
      throw Failure(ErrorCode::kBadFile,
                    fmt::format("{}: more than {} pieces", source_, kMaxPieces));
    out_.pieces.push_back(std::move(text));
    out_.scores.push_back(static_cast<double>(score));
    out_.kinds.push_back(static_cast<PieceKind>(type));
  }

  void trainer(std::string_view bytes) {
    ProtobufReader message(bytes, source_, "trainer specification");
    for (Field field; message.next(field);) {
      const bool number = field.number == 3 || field.number == 24 || field.number == 35;
      const bool text = field.number >= 45 && field.number <= 48;
      if (number) message.require(field, kVarint);
      if (text) message.require(field, kBytes);
      if (field.number == 3) model_type_ = field.value;
      if (field.number == 24 && field.value != 0) unsupported("treats white space as a suffix");
      if (field.number == 35) out_.byte_fallback = field.value != 0;
      if (field.number == 46) bos_ = field.bytes;
      if (field.number == 47) eos_ = field.bytes;
      if (field.number == 48) padding_ = field.bytes;
    }
  }

  void normalizer(std::string_view bytes) {
    ProtobufReader message(bytes, source_, "normalizer specification");
    for (Field field; message.next(field);) {
      if (field.number < 2 || field.number > 5) continue;
      message.require(field, field.number == 2 ? kBytes : kVarint);
      if (field.number == 2) step_.pattern = field.bytes;
      if (field.number == 3) step_.dummy_prefix = field.value != 0;
      if (field.number == 4) step_.squeeze_spaces = field.value != 0;
      if (field.number == 5) step_.escape_spaces = field.value != 0;
    }
  }

  void finish() {
    if (model_type_ != 1 && model_type_ != 2)
      unsupported(
          fmt::format("has the model type {} (spear runs 1, unigram, and 2, BPE)", model_type_));
    out_.model = model_type_ == 1 ? ModelKind::kUnigram : ModelKind::kScoreBpe;
    out_.fuse_unknown = true;
    out_.single_precision = true;
    out_.strip_first_space = step_.dummy_prefix;
    out_.normalizer.push_back(std::move(step_));
    for (size_t i = 0; i < out_.pieces.size(); ++i) {
      const auto id = static_cast<int32_t>(i);
      const PieceKind kind = out_.kinds[i];
      if (kind == PieceKind::kUnknown && out_.unknown < 0) out_.unknown = id;
      if ((kind != PieceKind::kControl && kind != PieceKind::kUnknown) || out_.pieces[i].empty())
        continue;
      if (out_.pieces[i] == bos_) out_.bos = id;
      if (out_.pieces[i] == eos_) out_.eos = id;
      if (out_.pieces[i] == padding_) out_.padding = id;
      AddedToken token;
      token.id = id;
      token.content = out_.pieces[i];
      token.special = true;
      out_.added.push_back(std::move(token));
    }
  }

  [[noreturn]] void unsupported(std::string_view what) const {
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format("{}: the SentencePiece model {}, which spear does not run", source_, what));
  }

  std::string_view source_;
  TokenizerDefinition out_;
  NormalizerStep step_;
  uint64_t model_type_ = 1;
  std::string bos_ = "<s>";
  std::string eos_ = "</s>";
  std::string padding_ = "<pad>";
};

// The families that ship a tokenizer.model begin every text with <s>, unless their configuration
// says no.
void put_around(std::string_view config, TokenizerDefinition& definition) {
  bool bos = true;
  bool eos = false;
  if (!config.empty()) {
    const SortedJson json = value_or_throw(parse_sorted_json(config, "tokenizer_config.json"));
    const JsonReader root(json, "tokenizer_config.json", "");
    bos = root.boolean_or("add_bos_token", bos);
    eos = root.boolean_or("add_eos_token", eos);
  }
  if (bos && definition.bos >= 0) definition.prefix.push_back(definition.bos);
  if (eos && definition.eos >= 0) definition.suffix.push_back(definition.eos);
}

}  // namespace

Result<TokenizerDefinition> definition_from_sentencepiece(std::string_view model,
                                                          std::string_view config,
                                                          std::string_view source) {
  try {
    TokenizerDefinition definition = Importer(source).run(model);
    if (!config.empty()) apply_tokenizer_config(config, "tokenizer_config.json", definition);
    put_around(config, definition);
    return definition;
  } catch (const Failure& failure) {
    return tl::unexpected(failure.error());
  }
}

}  // namespace spear
