// SentencePiece's tokenizer.model (a protobuf message): BPE and unigram vocabularies with their
// normalizer. Takes hostile bytes. Pure function, every thread.
#pragma once

#include <string_view>

#include "spear/base/error.h"
#include "spear/tokenizer/definition.h"

namespace spear {

// `config` is the text of tokenizer_config.json, or empty. `source` names the file in errors.
Result<TokenizerDefinition> definition_from_sentencepiece(std::string_view model,
                                                          std::string_view config,
                                                          std::string_view source);

}  // namespace spear
