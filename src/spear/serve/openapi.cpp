#include "spear/serve/openapi.h"

#include <utility>

#include "spear/base/json.h"

namespace spear {
namespace {

constexpr std::string_view kFields = R"json({
  "model": {"type": ["string", "null"]},
  "max_tokens": {"type": ["integer", "null"], "minimum": 0},
  "min_tokens": {"type": ["integer", "null"], "minimum": 0},
  "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
  "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
  "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
  "top_k": {"type": ["integer", "null"], "minimum": -1},
  "min_p": {"type": ["number", "null"], "minimum": 0, "exclusiveMaximum": 1},
  "typical_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
  "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
  "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
  "repetition_penalty": {"type": ["number", "null"], "minimum": 0.1, "maximum": 10},
  "seed": {"type": ["integer", "null"]},
  "stop": {"anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/StopString"},
    {"type": "array", "maxItems": 16, "items": {"$ref": "#/components/schemas/StopString"}}]},
  "stop_token_ids": {"type": ["array", "null"], "maxItems": 128,
    "items": {"$ref": "#/components/schemas/TokenId"}},
  "include_stop_str_in_output": {"type": ["boolean", "null"]},
  "ignore_eos": {"type": ["boolean", "null"]},
  "skip_special_tokens": {"type": ["boolean", "null"]},
  "logit_bias": {"type": ["object", "null"], "maxProperties": 1024,
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
  "stream": {"type": ["boolean", "null"]},
  "stream_options": {"type": ["object", "null"], "description": "only where stream is true",
    "properties": {"include_usage": {"type": ["boolean", "null"]},
                   "continuous_usage_stats": {"type": ["boolean", "null"]}}},
  "response_format": {"type": ["object", "null"], "required": ["type"], "properties": {
    "type": {"enum": ["text", "json_object", "json_schema"]},
    "json_schema": {"type": "object", "properties": {"name": {"type": "string"},
      "schema": {"type": "object"}}}}},
  "structured_outputs": {"type": ["object", "null"], "description": "one of them", "properties": {
    "json": {"type": ["object", "string", "null"]}, "regex": {"type": ["string", "null"]},
    "choice": {"type": ["array", "null"], "minItems": 1, "items": {"type": "string"}},
    "json_object": {"type": ["boolean", "null"]}}},
  "priority": {"type": ["integer", "null"], "description": "smaller goes first"},
  "cache_salt": {"type": ["string", "null"]},
  "truncate_prompt_tokens": {"type": ["integer", "null"], "minimum": 1},
  "compensators": {"type": ["string", "null"], "enum": ["auto", "full", "none", null]},
  "include_metrics": {"type": ["boolean", "null"]},
  "user": {"type": ["string", "null"]}
})json";

constexpr std::string_view kCompletionFields = R"json({
  "prompt": {"anyOf": [{"type": "string", "minLength": 1},
    {"type": "array", "minItems": 1, "maxItems": 256, "items": {"type": "string", "minLength": 1}},
    {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/TokenId"}},
    {"type": "array", "minItems": 1, "maxItems": 256, "items": {"type": "array", "minItems": 1,
      "items": {"$ref": "#/components/schemas/TokenId"}}}]},
  "echo": {"type": ["boolean", "null"]},
  "logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
  "prompt_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
  "best_of": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
  "add_special_tokens": {"type": ["boolean", "null"]},
  "suffix": {"type": ["string", "null"], "maxLength": 0}
})json";

constexpr std::string_view kChatFields = R"json({
  "messages": {"type": "array", "minItems": 1, "maxItems": 4096,
    "items": {"$ref": "#/components/schemas/Message"}},
  "max_completion_tokens": {"type": ["integer", "null"], "minimum": 0},
  "logprobs": {"type": ["boolean", "null"]},
  "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
  "tools": {"type": ["array", "null"], "maxItems": 128,
    "items": {"$ref": "#/components/schemas/Tool"}},
  "tool_choice": {"description": "none, auto, required, or one function"},
  "parallel_tool_calls": {"type": ["boolean", "null"]},
  "reasoning_effort": {"type": ["string", "null"]},
  "chat_template_kwargs": {"type": ["object", "null"]},
  "add_generation_prompt": {"type": ["boolean", "null"]}
})json";

constexpr std::string_view kRules = R"json({
  "stream_options": {"anyOf": [{"properties": {"stream_options": {"type": "null"}}},
    {"required": ["stream"], "properties": {"stream": {"const": true}}}]},
  "prompt_logprobs": {"anyOf": [{"properties": {"prompt_logprobs": {"type": "null"}}},
    {"properties": {"stream": {"enum": [false, null]}}}]},
  "top_logprobs": {"anyOf": [{"properties": {"top_logprobs": {"type": "null"}}},
    {"required": ["logprobs"], "properties": {"logprobs": {"const": true}}}]}
})json";

constexpr std::string_view kSchemas = R"json({
  "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
    "required": ["message", "type", "param", "code"], "properties": {
      "message": {"type": "string"}, "type": {"type": "string"},
      "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}},
  "TokenId": {"type": "integer", "minimum": 0},
  "StopString": {"type": "string", "minLength": 1, "maxLength": 256},
  "Message": {"type": "object", "required": ["role"], "properties": {
    "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
    "content": {"anyOf": [{"type": "null"}, {"type": "string"}, {"type": "array", "items": {
      "type": "object", "required": ["type", "text"],
      "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}}]},
    "tool_calls": {"type": ["array", "null"], "description": "of an assistant", "maxItems": 1024,
      "items": {"$ref": "#/components/schemas/ToolCall"}},
    "name": {"type": ["string", "null"]}, "tool_call_id": {"type": ["string", "null"]}},
    "anyOf": [
      {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
      {"required": ["tool_calls"], "properties": {"role": {"const": "assistant"},
        "tool_calls": {"type": "array", "minItems": 1}}}]},
  "ToolCall": {"type": "object", "required": ["function"], "properties": {
    "id": {"type": "string"}, "type": {"const": "function"}, "function": {"type": "object",
      "required": ["name"], "properties": {"name": {"type": "string"},
        "arguments": {"description": "a JSON object, or its text", "type": "object"}}}}},
  "Tool": {"type": "object", "required": ["type", "function"], "properties": {
    "type": {"const": "function"}, "function": {"type": "object", "required": ["name"],
      "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 128},
        "description": {"type": "string"}, "parameters": {"type": "object"}}}}},
  "Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {"prompt_tokens": {"type": "integer"},
      "completion_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
      "prompt_tokens_details": {"type": "object"}}},
  "Completion": {"type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
      "id": {"type": "string"}, "object": {"const": "text_completion"},
      "created": {"type": "integer"}, "model": {"type": "string"},
      "usage": {"$ref": "#/components/schemas/Usage"},
      "choices": {"type": "array", "items": {"type": "object",
        "required": ["index", "text", "logprobs", "finish_reason"]}}}},
  "ChatCompletion": {"type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
      "id": {"type": "string"}, "object": {"const": "chat.completion"},
      "created": {"type": "integer"}, "model": {"type": "string"},
      "usage": {"$ref": "#/components/schemas/Usage"},
      "choices": {"type": "array", "items": {"type": "object",
        "required": ["index", "message", "finish_reason"]}}}}
})json";

Json parsed(std::string_view text) {
  return value_or_throw(parse_json(text, "openapi"));
}

Json content(const char* type, Json schema) {
  return {{type, {{"schema", std::move(schema)}}}};
}

Json schema_reference(const char* name) {
  return {{"$ref", std::string("#/components/schemas/") + name}};
}

Json responses(Json good) {
  Json result = {{"200", {{"description", "the answer"}, {"content", std::move(good)}}}};
  const Json error = content("application/json", schema_reference("Error"));
  constexpr std::pair<const char*, const char*> kErrors[] = {
      {"400", "a field is wrong; the message names it"},
      {"401", "a valid API key is missing"},
      {"404", "no such model"},
      {"411", "the body's length is missing"},
      {"413", "the body is too large"},
      {"415", "the body is not JSON"},
      {"429", "later: Retry-After says when"},
      {"500", "the answer could not be finished"},
      {"503", "loading, draining or failed"}};
  for (const auto& [status, says] : kErrors)
    result[status] = {{"description", says}, {"content", error}};
  return result;
}

Json get(const char* id, const char* says, Json good) {
  return {
      {"get", {{"operationId", id}, {"summary", says}, {"responses", responses(std::move(good))}}}};
}

Json post(const char* id, const char* says, Json body, Json good) {
  return {{"post",
           {{"operationId", id},
            {"summary", says},
            {"requestBody",
             {{"required", true}, {"content", content("application/json", std::move(body))}}},
            {"responses", responses(std::move(good))}}}};
}

Json request_schema(std::string_view own, const char* required) {
  Json properties = parsed(kFields);
  const Json own_fields = parsed(own);
  for (const auto& [name, field] : own_fields.items()) properties[name] = field;
  // What one field asks of another.
  Json rules = parsed(kRules);
  Json all = Json::array();
  for (const auto& [name, rule] : rules.items())
    if (properties.contains(name)) all.push_back(rule);
  return {{"type", "object"},
          {"required", Json::array({required})},
          {"properties", std::move(properties)},
          {"allOf", std::move(all)}};
}

Json answer(const char* name) {
  Json either = content("application/json", schema_reference(name));
  // Of one event.
  either["text/event-stream"] = {
      {"schema",
       {{"type", "object"},
        {"required", {"data"}},
        {"properties",
         {{"data", {{"type", "string"}, {"description", "a chunk as JSON, or [DONE]"}}}}}}}};
  return either;
}

Json paths() {
  const Json object = content("application/json", {{"type", "object"}});
  const Json ids = {{"type", "array"}, {"items", schema_reference("TokenId")}};
  const Json maybe = {{"type", {"boolean", "null"}}};
  const auto text_at = [](const char* name) {
    return Json{{"required", {name}}, {"properties", {{name, {{"type", "string"}}}}}};
  };
  Json all = Json::object();
  all["/health"] = get("health", "whether the process works", object);
  all["/ready"] = get("ready", "whether requests should come here", object);
  all["/metrics"] = get("metrics", "counts and times for Prometheus",
                        content("text/plain", {{"type", "string"}}));
  all["/version"] = get("version", "of the program", object);
  all["/load"] = get("load", "requests that are here", object);
  all["/openapi.json"] = get("openapi", "this document", object);
  all["/v1/models"] = get("models", "the model, with its quality certificate", object);
  all["/v1/models/{model}"] = get("model", "one model", object);
  all["/v1/models/{model}"]["parameters"] = Json::array(
      {{{"name", "model"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  all["/tokenizer_info"] = get("tokenizer_info", "special tokens and chat template", object);
  all["/tokenize"] = post("tokenize", "text or messages to token ids",
                          {{"type", "object"},
                           {"properties",
                            {{"prompt", {{"type", {"string", "null"}}}},
                             {"content", {{"type", {"string", "null"}}}},
                             {"add_special_tokens", maybe},
                             {"return_token_strs", maybe}}},
                           {"anyOf", Json::array({text_at("prompt"), text_at("content")})}},
                          object);
  all["/detokenize"] = post("detokenize", "token ids to text",
                            {{"type", "object"},
                             {"required", Json::array({"tokens"})},
                             {"properties", {{"tokens", ids}}}},
                            object);
  all["/v1/completions"] = post("completions", "continues a text",
                                request_schema(kCompletionFields, "prompt"), answer("Completion"));
  all["/v1/chat/completions"] =
      post("chat_completions", "answers in a conversation", request_schema(kChatFields, "messages"),
           answer("ChatCompletion"));
  return all;
}

}  // namespace

std::string openapi_document(std::string_view version, bool wants_key, int64_t vocab_size) {
  Json document = {{"openapi", "3.1.0"},
                   {"info", {{"title", "spear"}, {"version", std::string(version)}}},
                   {"paths", paths()},
                   {"components", {{"schemas", parsed(kSchemas)}}}};
  if (vocab_size > 0) document["components"]["schemas"]["TokenId"]["maximum"] = vocab_size - 1;
  if (!wants_key) return document.dump();
  document["components"]["securitySchemes"] = {{"key", {{"type", "http"}, {"scheme", "bearer"}}}};
  document["security"] = Json::array({{{"key", Json::array()}}});
  for (const char* open : {"/health", "/ready"})
    document["paths"][open]["get"]["security"] = Json::array();
  return document.dump();
}

}  // namespace spear
