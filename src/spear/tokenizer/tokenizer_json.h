// Hugging Face's tokenizer.json, read and written. Reading takes hostile text; what spear does not
// run is refused by its name in the file. Pure functions, every thread.
#pragma once

#include <string>
#include <string_view>

#include "spear/base/error.h"
#include "spear/tokenizer/definition.h"

namespace spear {

// `config` is the text of tokenizer_config.json, or empty. `source` names the file in errors.
Result<TokenizerDefinition> definition_from_json(std::string_view tokenizer_json,
                                                 std::string_view config, std::string_view source);

// A tokenizer.json with which the `tokenizers` package gives the same ids.
std::string tokenizer_json(const TokenizerDefinition& definition);

// The special tokens, added tokens and the chat template that tokenizer_config.json names. Throws
// Failure.
void apply_tokenizer_config(std::string_view config, std::string_view source,
                            TokenizerDefinition& definition);

}  // namespace spear
