// The body of POST /v1/completions, understood: one engine request a prompt. Pure function, every
// thread.
#pragma once

#include <string>
#include <vector>

#include "spear/serve/generation_fields.h"
#include "spear/serve/serve_limits.h"

namespace spear {

struct CompletionRequest {
  GenerationFields fields;
  std::vector<Request> requests;   // a prompt each
  std::vector<std::string> texts;  // of the prompts, where they are echoed
  bool echo = false;
  bool prompt_logprobs = false;  // as a list of their own
};

ApiResult<CompletionRequest> read_completion(const HttpRequest& http, const Json& body,
                                             const ServedModel& model, const ServeLimits& limits);

}  // namespace spear
