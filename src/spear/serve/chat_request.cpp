#include "spear/serve/chat_request.h"

#include <ctime>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/serve/answer_format.h"

namespace spear {
namespace {

void read_own_fields(FieldReader& fields, ChatRequest& into) {
  GenerationFields& common = into.fields;
  int64_t tokens = 0;
  fields.integer("max_tokens", tokens, 0);
  fields.integer("max_completion_tokens", tokens, 0);  // wins
  if (fields.has("max_tokens") || fields.has("max_completion_tokens")) common.max_tokens = tokens;
  fields.boolean("logprobs", into.logprobs);
  int32_t top = 0;
  fields.integer("top_logprobs", top, 0);
  if (fields.has("top_logprobs") && !into.logprobs)
    fields.refuse("top_logprobs", "only allowed where logprobs is true");
  if (into.logprobs) common.request.logprobs = top;
  fields.only_false("continue_final_message");
  fields.only_false("echo");
  fields.only_absent("chat_template", "templates of requests are not run by this server");
  fields.only_absent("best_of", "only completions have it");
  fields.only_absent("audio", "this model answers in text only");
  fields.only_absent("prediction", "not supported by this server");
  fields.only_absent("prompt_logprobs", "only completions have them");
  if (const Json* modalities = fields.array("modalities", 8))
    for (const Json& one : *modalities)
      if (one != Json("text"))
        fields.refuse("modalities", "this model answers in text only", "unsupported_value");
}

Json template_variables(const Json& body, const Json& messages, const Json& tools,
                        const ServedModel& model) {
  Json variables = Json::object();
  // The client's own variables first: they replace none of ours.
  const auto extra = body.find("chat_template_kwargs");
  if (extra != body.end() && extra->is_object()) variables = *extra;
  const auto effort = body.find("reasoning_effort");
  if (effort != body.end() && effort->is_string()) variables["reasoning_effort"] = *effort;
  variables["messages"] = messages;
  if (!tools.is_null()) variables["tools"] = tools;
  variables["add_generation_prompt"] =
      body.value("add_generation_prompt", Json(true)) != Json(false);
  variables["bos_token"] = model.tokenizer().text_of(model.tokenizer().bos_id());
  variables["eos_token"] = model.tokenizer().text_of(model.tokenizer().eos_id());
  return variables;
}

}  // namespace

ApiResult<std::vector<int32_t>> conversation_ids(const Json& body, const Json& messages,
                                                 const Json& tools, const ServedModel& model) {
  if (!model.chat_template())
    return refuse({400,
                   "messages: this model has no chat template; use /v1/completions with a prompt",
                   "messages", "no_chat_template"});
  FieldReader fields(body);
  bool generation_prompt = true;
  fields.boolean("add_generation_prompt", generation_prompt);
  fields.object("chat_template_kwargs");
  bool add_special = false;  // the template writes them
  fields.boolean("add_special_tokens", add_special);
  if (!fields.ok()) return refuse(fields.error());
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  const Result<std::string> prompt =
      model.chat_template()->render(template_variables(body, messages, tools, model), now);
  if (!prompt)
    return refuse(
        {400, fmt::format("messages: the chat template refuses them: {}", prompt.error().message),
         "messages", "template_error"});
  return model.encode(*prompt, add_special, true, "messages");
}

ApiResult<ChatRequest> read_chat(const HttpRequest& http, const Json& body,
                                 const ServedModel& model, const ServeLimits& limits) {
  ChatRequest result;
  FieldReader fields(body);
  read_generation_fields(fields, result.fields);
  read_own_fields(fields, result);
  if (!fields.ok()) return refuse(fields.error());
  if (const ApiResult<void> known = model.check_name(result.fields.model); !known)
    return refuse(known.error());
  if (const ApiResult<void> read = read_objectives(http, result.fields.request); !read)
    return refuse(read.error());

  const ApiResult<Json> messages = read_messages(body, limits);
  if (!messages) return refuse(messages.error());
  Json tools;
  Json schema;
  ApiResult<ToolFields> tool_fields = read_tools(body, limits, tools, schema);
  if (!tool_fields) return refuse(tool_fields.error());
  result.tools = std::move(*tool_fields);
  auto format = schema.is_null() ? read_answer_format(body, limits, model.engine())
                                 : schema_constraint(schema, limits, model.engine(), "tools");
  if (!format) return refuse(format.error());
  result.fields.request.constraint = std::move(*format);

  ApiResult<std::vector<int32_t>> ids = conversation_ids(body, *messages, tools, model);
  if (!ids) return refuse(ids.error());
  ApiResult<Request> request =
      with_prompt(result.fields, std::move(*ids), model.max_context(), model.max_context());
  if (!request) return refuse(request.error());
  result.request = std::move(*request);
  return result;
}

}  // namespace spear
