// What other programs read of a tokenizer beside its ids: tokenizer_config.json. Pure function,
// every thread.
#pragma once

#include <cstdint>
#include <string>

#include "spear/base/json_fwd.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

// Special tokens by name (null: none), the longest text in tokens, the chat template if any.
Json tokenizer_info(const Tokenizer& tokenizer, const std::string& chat_template,
                    int64_t max_length);

}  // namespace spear
