#include "spear/serve/chat_messages.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "spear/base/json.h"

namespace spear {
namespace {

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};

// A string, or parts of type text; null where there is none.
ApiResult<Json> content_of(const Json& message, const std::string& path) {
  FieldReader fields(message, path);
  const Json* content = fields.find("content");
  if (content == nullptr) return Json(nullptr);
  if (content->is_string()) return *content;
  if (!content->is_array())
    return refuse_field(
        path + "content",
        fmt::format("a string or a list of parts expected, found {}", type_text(*content)),
        "invalid_type");
  std::string joined;
  for (const Json& part : *content) {
    const bool text = part.is_object() && part.value("type", Json()) == Json("text") &&
                      part.contains("text") && part["text"].is_string();
    if (!text)
      return refuse_field(path + "content",
                          "parts {\"type\": \"text\", \"text\": …} expected; this model reads text "
                          "only",
                          "unsupported_value");
    joined += part["text"].get<std::string>();
  }
  return Json(std::move(joined));
}

ApiResult<Json> call_of(const Json& call, const std::string& path) {
  const auto function = call.is_object() ? call.find("function") : call.end();
  if (!call.is_object() || function == call.end() || !function->is_object() ||
      !function->contains("name") || !(*function)["name"].is_string())
    return refuse_field(path + "tool_calls", "calls with function.name expected", "invalid_type");
  Json arguments = function->value("arguments", Json::object());
  if (arguments.is_string()) {
    const auto text = arguments.get<std::string>();
    Result<Json> parsed = parse_json(text.empty() ? "{}" : text, "arguments");
    if (!parsed) return refuse_field(path + "tool_calls", parsed.error().message);
    arguments = std::move(*parsed);
  }
  if (!arguments.is_object())
    return refuse_field(path + "tool_calls", "arguments must be a JSON object", "invalid_type");
  Json result = {{"type", "function"},
                 {"function", {{"name", (*function)["name"]}, {"arguments", arguments}}}};
  if (call.contains("id") && call["id"].is_string()) result["id"] = call["id"];
  return result;
}

ApiResult<Json> message_of(const Json& message, const std::string& path) {
  if (!message.is_object())
    return refuse_field(path.substr(0, path.size() - 1),
                        fmt::format("an object expected, found {}", type_text(message)),
                        "invalid_type");
  FieldReader fields(message, path);
  std::string role;
  fields.text("role", role);
  if (!fields.ok()) return refuse(fields.error());
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end())
    return refuse_field(path + "role", "system, developer, user, assistant or tool expected",
                        "invalid_value");
  ApiResult<Json> content = content_of(message, path);
  if (!content) return content;
  Json result = {{"role", role == "developer" ? "system" : role}};
  const Json* calls = fields.array("tool_calls", 1024);
  if (!fields.ok()) return refuse(fields.error());
  if (calls != nullptr && !calls->empty() && role != "assistant")
    return refuse_field(path + "tool_calls", "only an assistant calls tools");
  if (content->is_null() && (calls == nullptr || calls->empty()))
    return refuse_field(path + "content", "it is missing", "missing_field");
  result["content"] = content->is_null() ? Json("") : std::move(*content);
  if (calls != nullptr && !calls->empty()) {
    Json list = Json::array();
    for (const Json& call : *calls) {
      ApiResult<Json> one = call_of(call, path);
      if (!one) return one;
      list.push_back(std::move(*one));
    }
    result["tool_calls"] = std::move(list);
  }
  for (const char* name : {"name", "tool_call_id"}) {
    std::string text;
    fields.text(name, text);
    if (!fields.ok()) return refuse(fields.error());
    if (!text.empty()) result[name] = text;
  }
  return result;
}

ApiResult<void> check_tool(const Json& tool, size_t index, std::vector<std::string>& names) {
  const std::string path = fmt::format("tools[{}]", index);
  if (!tool.is_object() || tool.value("type", Json()) != Json("function"))
    return refuse_field(path, "an object of type function expected", "invalid_type");
  const auto function = tool.find("function");
  if (function == tool.end() || !function->is_object())
    return refuse_field(path + ".function", "an object expected", "invalid_type");
  const auto name = function->find("name");
  constexpr size_t kLongest = 128;
  if (name == function->end() || !name->is_string() ||
      name->get_ref<const std::string&>().empty() ||
      name->get_ref<const std::string&>().size() > kLongest)
    return refuse_field(path + ".function.name", "a name of 1 to 128 bytes expected");
  const auto parameters = function->find("parameters");
  if (parameters != function->end() && !parameters->is_object() && !parameters->is_null())
    return refuse_field(path + ".function.parameters", "a JSON schema (an object) expected",
                        "invalid_type");
  names.push_back(name->get<std::string>());
  return {};
}

ApiResult<void> read_choice(const Json& choice, ToolFields& into) {
  if (choice == Json("none")) {
    into.choice = ToolFields::Choice::kNone;
  } else if (choice == Json("auto")) {
    into.choice = ToolFields::Choice::kAuto;
  } else if (choice == Json("required")) {
    into.choice = ToolFields::Choice::kRequired;
  } else {
    const Json::json_pointer at("/function/name");
    if (!choice.is_object() || !choice.contains(at) || !choice[at].is_string())
      return refuse_field("tool_choice",
                          "none, auto, required or {\"type\": \"function\", \"function\": "
                          "{\"name\": …}} expected");
    const auto name = choice[at].get<std::string>();
    if (std::find(into.names.begin(), into.names.end(), name) == into.names.end())
      return refuse_field("tool_choice", "it names a function that is not among the tools");
    into.names = {name};
    into.choice = ToolFields::Choice::kRequired;
  }
  return {};
}

Json call_schema(const Json& tools, const std::vector<std::string>& names) {
  Json calls = Json::array();
  for (const Json& tool : tools) {
    const Json& function = tool["function"];
    const auto name = function["name"].get<std::string>();
    if (std::find(names.begin(), names.end(), name) == names.end()) continue;
    Json parameters = function.value("parameters", Json());
    if (parameters.is_null() || parameters.empty()) parameters = {{"type", "object"}};
    calls.push_back({{"type", "object"},
                     {"properties", {{"name", {{"const", name}}}, {"arguments", parameters}}},
                     {"required", {"name", "arguments"}},
                     {"additionalProperties", false}});
  }
  return calls.size() == 1 ? calls[0] : Json{{"anyOf", calls}};
}

}  // namespace

ApiResult<Json> read_messages(const Json& body, const ServeLimits& limits) {
  FieldReader fields(body);
  const Json* messages = fields.array("messages", limits.messages);
  if (!fields.ok()) return refuse(fields.error());
  if (messages == nullptr) return refuse_field("messages", "it is missing", "missing_field");
  if (messages->empty()) return refuse_field("messages", "at least one message expected");
  Json list = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    ApiResult<Json> message = message_of((*messages)[i], fmt::format("messages[{}].", i));
    if (!message) return message;
    list.push_back(std::move(*message));
  }
  return list;
}

ApiResult<ToolFields> read_tools(const Json& body, const ServeLimits& limits, Json& tools,
                                 Json& schema) {
  ToolFields result;
  FieldReader fields(body);
  fields.only_absent("functions", "use tools");
  fields.only_absent("function_call", "use tool_choice");
  const Json* list = fields.array("tools", limits.tools);
  fields.boolean("parallel_tool_calls", result.parallel);
  if (!fields.ok()) return refuse(fields.error());
  const Json* choice = fields.find("tool_choice");
  if (list == nullptr || list->empty()) {
    if (choice != nullptr && *choice != Json("none") && *choice != Json("auto"))
      return refuse_field("tool_choice", "only allowed with tools");
    return result;
  }
  if (one_line(*list).size() > limits.tool_bytes)
    return refuse_field("tools", fmt::format("at most {} bytes expected", limits.tool_bytes));
  for (size_t i = 0; i < list->size(); ++i)
    if (const ApiResult<void> good = check_tool((*list)[i], i, result.names); !good)
      return refuse(good.error());
  result.choice = ToolFields::Choice::kAuto;
  if (choice != nullptr)
    if (const ApiResult<void> read = read_choice(*choice, result); !read)
      return refuse(read.error());
  if (result.choice == ToolFields::Choice::kNone) return result;
  tools = *list;
  if (result.choice == ToolFields::Choice::kRequired) schema = call_schema(tools, result.names);
  return result;
}

}  // namespace spear
