#include "spear/serve/tokenize_routes.h"

#include <vector>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/serve/chat_request.h"
#include "spear/serve/token_text.h"

namespace spear {
namespace {

HttpReply reply_of(const Json& json) {
  return {.body = one_line(json)};
}

struct TextFields {
  std::string model, text;
  bool is_content = false, is_messages = false;
  bool add_special = true, parse_special = true, strings = false;
};

ApiResult<TextFields> read_fields(const Json& body) {
  TextFields result;
  FieldReader fields(body);
  fields.text("model", result.model);
  result.is_messages = fields.has("messages");
  result.is_content = !result.is_messages && !fields.has("prompt") && fields.has("content");
  bool add_special_of_content = false;
  std::string content;
  fields.text("prompt", result.text);
  fields.boolean("add_special_tokens", result.add_special);
  fields.text("content", content);
  fields.boolean("add_special", add_special_of_content);
  if (result.is_content) {
    result.text = std::move(content);
    result.add_special = add_special_of_content;
    fields.boolean("with_pieces", result.strings);
  } else if (!result.is_messages && !fields.has("prompt")) {
    fields.refuse("prompt", "prompt, messages or content expected, found none", "missing_field");
  }
  fields.boolean("parse_special", result.parse_special);
  fields.boolean("return_token_strs", result.strings);
  if (!fields.ok()) return refuse(fields.error());
  return result;
}

ApiResult<std::vector<int32_t>> ids_of(const Json& body, const TextFields& fields,
                                       const ServedModel& model, const ServeLimits& limits) {
  if (!fields.is_messages)
    return model.encode(fields.text, fields.add_special, fields.parse_special,
                        fields.is_content ? "content" : "prompt");
  const ApiResult<Json> messages = read_messages(body, limits);
  if (!messages) return refuse(messages.error());
  Json tools;
  Json schema;
  if (const auto read = read_tools(body, limits, tools, schema); !read) return refuse(read.error());
  return conversation_ids(body, *messages, tools, model);
}

Json pieces(const std::vector<int32_t>& ids, const Tokenizer& tokenizer, bool with_ids) {
  Json list = Json::array();
  for (const int32_t id : ids) {
    Json piece = token_string(tokenizer, id);
    list.push_back(with_ids ? Json{{"id", id}, {"piece", std::move(piece)}} : std::move(piece));
  }
  return list;
}

}  // namespace

HttpReply tokenize_reply(const Json& body, const ServedModel& model, const ServeLimits& limits) {
  const ApiResult<TextFields> fields = read_fields(body);
  if (!fields) return error_reply(fields.error());
  if (const ApiResult<void> known = model.check_name(fields->model); !known)
    return error_reply(known.error());
  const ApiResult<std::vector<int32_t>> ids = ids_of(body, *fields, model, limits);
  if (!ids) return error_reply(ids.error());
  if (fields->is_content)
    return reply_of(
        {{"tokens", fields->strings ? pieces(*ids, model.tokenizer(), true) : Json(*ids)}});
  Json reply = {{"count", ids->size()}, {"max_model_len", model.max_context()}, {"tokens", *ids}};
  if (fields->strings) reply["token_strs"] = pieces(*ids, model.tokenizer(), false);
  return reply_of(reply);
}

HttpReply detokenize_reply(const Json& body, const ServedModel& model) {
  FieldReader fields(body);
  std::string name;
  fields.text("model", name);
  constexpr size_t kMostTokens = size_t{1} << 20;
  const Json* tokens = fields.array("tokens", kMostTokens);
  if (tokens == nullptr) fields.refuse("tokens", "a list of token ids expected", "missing_field");
  if (!fields.ok()) return error_reply(fields.error());
  if (const ApiResult<void> known = model.check_name(name); !known)
    return error_reply(known.error());
  std::vector<int32_t> ids;
  ids.reserve(tokens->size());
  for (const Json& entry : *tokens) {
    const std::optional<int64_t> id = whole_number(entry);
    if (!id || !model.tokenizer().is_id(*id))
      return error_reply(refuse_field("tokens", fmt::format("token ids from 0 to {} expected",
                                                            model.tokenizer().vocab_size() - 1))
                             .value());
    ids.push_back(static_cast<int32_t>(*id));
  }
  const std::string text = model.tokenizer().decode(ids);
  return reply_of({{"prompt", text}, {"content", text}, {"text", text}});
}

}  // namespace spear
