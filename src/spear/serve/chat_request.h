// The body of POST /v1/chat/completions, understood: the conversation as a prompt, and what its
// answer may be. Pure functions, every thread.
#pragma once

#include "spear/serve/chat_messages.h"
#include "spear/serve/generation_fields.h"

namespace spear {

struct ChatRequest {
  GenerationFields fields;
  Request request;
  bool logprobs = false;
  ToolFields tools;
};

ApiResult<ChatRequest> read_chat(const HttpRequest& http, const Json& body,
                                 const ServedModel& model, const ServeLimits& limits);

// The ids of a conversation ("messages", "tools" and what else the template reads of the body).
ApiResult<std::vector<int32_t>> conversation_ids(const Json& body, const Json& messages,
                                                 const Json& tools, const ServedModel& model);

}  // namespace spear
