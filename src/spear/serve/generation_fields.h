// What completions and chats have in common: how tokens are chosen, what ends an answer, what
// comes back beside it. Pure functions of a request's JSON, every thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spear/engine/request.h"
#include "spear/serve/field_reader.h"
#include "spear/serve/served_model.h"

namespace spear {

struct StreamFields {
  bool stream = false;
  bool include_usage = false;     // one chunk at the end
  bool continuous_usage = false;  // and in every chunk
};

struct GenerationFields {
  std::string model;
  StreamFields streaming;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> truncate_prompt;  // to its last tokens
  bool include_metrics = false;            // times in the reply
  Request request;                         // all but its prompt and max_tokens
};

// Fields of both endpoints but max_tokens; log-probabilities differ and are not read here.
void read_generation_fields(FieldReader& fields, GenerationFields& into);

// Objectives of the headers x-slo-ttft-ms and x-slo-tpot-ms, in milliseconds.
ApiResult<void> read_objectives(const HttpRequest& http, Request& request);

// Puts the prompt in and sees that it and the answer fit: 400 states both numbers. Without
// max_tokens the answer may have `otherwise` tokens, or what is left of the context, if less.
ApiResult<Request> with_prompt(const GenerationFields& fields, std::vector<int32_t> prompt,
                               int64_t otherwise, int64_t max_context);

}  // namespace spear
