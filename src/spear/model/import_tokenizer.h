// The tokenizer that comes with a checkpoint: GGUF metadata, tokenizer.json, or SentencePiece's
// tokenizer.model; and the check that it and the model speak of the same vocabulary.
#pragma once

#include "spear/model/checkpoint.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

Result<Tokenizer> load_tokenizer(const Checkpoint& checkpoint);

// The tokenizer keys of a GGUF file; a key of the wrong type is an error that names it.
Result<GgufVocabulary> vocabulary_from_gguf(const GgufFile& file);

}  // namespace spear
