// POST /tokenize and /detokenize, in the forms of the servers that clients know. Pure functions,
// every thread.
#pragma once

#include "spear/base/json_fwd.h"
#include "spear/serve/http_message.h"
#include "spear/serve/serve_limits.h"
#include "spear/serve/served_model.h"

namespace spear {

// {"prompt"} or {"messages"} gives {"count", "max_model_len", "tokens", "token_strs"?};
// {"content"} gives {"tokens"}, with_pieces as [{"id", "piece"}].
HttpReply tokenize_reply(const Json& body, const ServedModel& model, const ServeLimits& limits);
// {"tokens"} gives {"prompt", "content", "text"}: each client reads its own.
HttpReply detokenize_reply(const Json& body, const ServedModel& model);

}  // namespace spear
