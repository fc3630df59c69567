// The tokenizer keys of a GGUF file as plain data. Whoever reads the file fills it; this folder
// never sees GGUF.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/tokenizer/definition.h"

namespace spear {

// Each field is the key tokenizer.ggml.<name>; absent keys stay empty.
struct GgufVocabulary {
  std::string model;  // "gpt2", "llama" or "t5"
  std::string pre;    // "smollm", "llama-bpe", "qwen2", "gpt-2", …
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> token_type;
  std::vector<std::string> merges;  // "left right"
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> eos_token_id;
  std::optional<int64_t> unknown_token_id;
  std::optional<int64_t> padding_token_id;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_space_prefix;
  std::optional<bool> remove_extra_whitespaces;
  std::string precompiled_charsmap;
  std::string chat_template;  // the key tokenizer.chat_template
};

// `source` names the file in errors. The vocabulary is hostile.
Result<TokenizerDefinition> definition_from_gguf(const GgufVocabulary& vocabulary,
                                                 std::string_view source);

}  // namespace spear
