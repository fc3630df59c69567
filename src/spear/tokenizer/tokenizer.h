// Text to token ids and back, the same ids as the model's own tokenizer, for byte-level BPE and
// SentencePiece. Built from tokenizer.json, tokenizer.model, GGUF keys or an artifact's section;
// all of them are hostile. Immutable and cheap to copy: safe from every thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/tokenizer/definition.h"
#include "spear/tokenizer/gguf_vocabulary.h"

namespace spear {

struct EncodeOptions {
  bool add_special = false;    // put the model's begin and end tokens around the text
  bool parse_special = false;  // "<|im_end|>" in the text is that token, not seven pieces
};

class Tokenizer {
 public:
  // `config` is tokenizer_config.json, or empty: it names the special tokens and holds the chat
  // template. `source` names the file in errors.
  static Result<Tokenizer> from_json(std::string_view tokenizer_json, std::string_view config,
                                     std::string_view source);
  static Result<Tokenizer> from_sentencepiece(std::string_view model, std::string_view config,
                                              std::string_view source);
  static Result<Tokenizer> from_gguf(const GgufVocabulary& vocabulary, std::string_view source);
  static Result<Tokenizer> from_definition(TokenizerDefinition definition, std::string_view source);

  // The artifact's section (docs/tokenizer-section.md): everything above in one form.
  [[nodiscard]] std::string serialize() const;
  static Result<Tokenizer> parse(std::string_view section, std::string_view source);
  // For other tools: a tokenizer.json that gives the same ids.
  [[nodiscard]] std::string to_tokenizer_json() const;

  // Any bytes. Throws Failure only when a pattern of the definition backtracks without end.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text,
                                            EncodeOptions options = {}) const;
  // The bytes the ids stand for; may be invalid UTF-8. Throws Failure(kUsage) for an id out of
  // range.
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;
  // The text of one id, as chat templates want that of special tokens; empty for what is no id.
  [[nodiscard]] std::string text_of(int32_t id) const {
    return is_id(id) ? decode({&id, 1}) : std::string();
  }

  [[nodiscard]] int32_t vocab_size() const;
  [[nodiscard]] bool is_id(int64_t id) const { return id >= 0 && id < vocab_size(); }
  // The bytes of one token in the middle of a text. Throws Failure(kUsage) for an id out of range.
  [[nodiscard]] std::string_view token_bytes(int32_t id) const;
  [[nodiscard]] bool is_special(int32_t id) const;
  // The id of an added token or piece, exactly so spelt; -1 when there is none.
  [[nodiscard]] int32_t id_of(std::string_view piece) const;
  [[nodiscard]] bool strips_first_space() const;

  [[nodiscard]] int32_t bos_id() const;  // -1: none; so too below
  [[nodiscard]] int32_t eos_id() const;
  [[nodiscard]] int32_t unknown_id() const;
  [[nodiscard]] int32_t padding_id() const;
  // Where generation ends: the end token and the families' end-of-turn tokens.
  [[nodiscard]] const std::vector<int32_t>& stop_ids() const;
  [[nodiscard]] const std::string& chat_template() const;
  [[nodiscard]] const TokenizerDefinition& definition() const;

 private:
  struct Built;
  class Encoding;
  explicit Tokenizer(std::shared_ptr<const Built> built);
  std::shared_ptr<const Built> built_;
};

}  // namespace spear
