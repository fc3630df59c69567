#include "spear/serve/completion_request.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/serve/answer_format.h"

namespace spear {
namespace {

constexpr int64_t kDefaultTokens = 16;  // the API's

ApiResult<std::vector<int32_t>> token_ids(const Json& list, int64_t vocab_size) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const Json& entry : list) {
    const std::optional<int64_t> id = whole_number(entry);
    if (!id)
      return refuse_field("prompt", fmt::format("token ids expected, found {}", type_text(entry)),
                          "invalid_type");
    if (*id < 0 || *id >= vocab_size)
      return refuse_field(
          "prompt", fmt::format("token ids from 0 to {} expected, found {}", vocab_size - 1, *id));
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

class PromptReader {
 public:
  PromptReader(const ServedModel& model, bool add_special)
      : model_(model), add_special_(add_special) {}

  ApiResult<void> read(const Json& prompt, const ServeLimits& limits) {
    if (prompt.is_string()) return add(prompt);
    if (!prompt.is_array())
      return refuse_field("prompt",
                          fmt::format("a string, a list of strings, token ids or lists of token "
                                      "ids expected, found {}",
                                      type_text(prompt)),
                          "invalid_type");
    if (prompt.empty()) return refuse_field("prompt", "it is empty");
    if (prompt[0].is_number()) return add(prompt);
    if (prompt.size() > limits.prompts)
      return refuse_field("prompt", fmt::format("at most {} prompts expected, found {}",
                                                limits.prompts, prompt.size()));
    for (const Json& one : prompt) {
      if (one.type() != prompt[0].type() || !(one.is_string() || one.is_array()))
        return refuse_field("prompt", "all strings or all lists of token ids expected",
                            "invalid_type");
      if (ApiResult<void> added = add(one); !added) return added;
    }
    return {};
  }

  std::vector<std::vector<int32_t>> prompts;

 private:
  ApiResult<void> add(const Json& prompt) {
    ApiResult<std::vector<int32_t>> ids =
        prompt.is_string() ? model_.encode(prompt.get<std::string>(), add_special_, true, "prompt")
                           : token_ids(prompt, model_.engine().limits().vocab_size);
    if (!ids) return refuse(ids.error());
    if (ids->empty() || (prompt.is_string() && prompt.get_ref<const std::string&>().empty()))
      return refuse_field("prompt", "it is empty");
    prompts.push_back(std::move(*ids));
    return {};
  }

  const ServedModel& model_;
  bool add_special_;
};

void read_own_fields(FieldReader& fields, CompletionRequest& into) {
  Request& request = into.fields.request;
  fields.boolean("echo", into.echo);
  fields.integer("logprobs", request.logprobs, 0);
  fields.integer("best_of", request.best_of, 1);
  fields.integer("prompt_logprobs", request.prompt_logprobs, 0);
  into.prompt_logprobs = request.prompt_logprobs >= 0;
  int64_t tokens = 0;
  fields.integer("max_tokens", tokens, 0);
  if (fields.has("max_tokens")) into.fields.max_tokens = tokens;
  std::string suffix;
  fields.text("suffix", suffix);
  if (!suffix.empty())
    fields.refuse("suffix", "text after the answer is not supported by this server",
                  "unsupported_value");
  if (into.fields.streaming.stream && into.prompt_logprobs)
    fields.refuse("prompt_logprobs", "not allowed where stream is true");
  if (into.fields.streaming.stream && request.best_of > request.n)
    fields.refuse("best_of", "more than n is not allowed where stream is true");
  if (into.echo && request.logprobs >= 0)
    request.prompt_logprobs = std::max(request.prompt_logprobs, request.logprobs);
}

}  // namespace

ApiResult<CompletionRequest> read_completion(const HttpRequest& http, const Json& body,
                                             const ServedModel& model, const ServeLimits& limits) {
  CompletionRequest result;
  FieldReader fields(body);
  read_generation_fields(fields, result.fields);
  read_own_fields(fields, result);
  bool add_special = true;
  fields.boolean("add_special_tokens", add_special);
  const Json* prompt = fields.find("prompt");
  if (prompt == nullptr) fields.refuse("prompt", "it is missing", "missing_field");
  if (!fields.ok()) return refuse(fields.error());
  if (const ApiResult<void> known = model.check_name(result.fields.model); !known)
    return refuse(known.error());
  if (const ApiResult<void> read = read_objectives(http, result.fields.request); !read)
    return refuse(read.error());

  auto format = read_answer_format(body, limits, model.engine());
  if (!format) return refuse(format.error());
  result.fields.request.constraint = std::move(*format);
  PromptReader reader(model, add_special);
  if (const ApiResult<void> read = reader.read(*prompt, limits); !read) return refuse(read.error());
  for (std::vector<int32_t>& ids : reader.prompts) {
    ApiResult<Request> request =
        with_prompt(result.fields, std::move(ids), kDefaultTokens, model.max_context());
    if (!request) return refuse(request.error());
    if (result.echo)
      result.texts.push_back(
          model.tokenizer().decode(request->prompt, result.fields.request.skip_special));
    result.requests.push_back(std::move(*request));
  }
  return result;
}

}  // namespace spear
