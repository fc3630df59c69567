#include "spear/serve/answer_format.h"

#include <vector>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/engine/constraint.h"
#include "spear/engine/engine.h"

namespace spear {
namespace {

using Answer = ApiResult<ConstraintPointer>;

Answer compiled(Result<ConstraintPointer> result, const char* field) {
  if (result) return std::move(*result);
  return refuse_field(field, result.error().message, "invalid_format");
}

Answer too_large(size_t bytes, const ServeLimits& limits, const char* field) {
  return refuse_field(
      field, fmt::format("at most {} bytes expected, found {}", limits.schema_bytes, bytes));
}

Answer regex_constraint(const Json& regex, const ServeLimits& limits, Engine& engine,
                        const char* field) {
  if (!regex.is_string()) return refuse_field(field, "a string expected", "invalid_type");
  const auto text = regex.get<std::string>();
  if (text.size() > limits.schema_bytes) return too_large(text.size(), limits, field);
  return compiled(compile_regex(text, engine.vocabulary()), field);
}

Answer choice_constraint(const Json& choice, Engine& engine, const char* field) {
  std::vector<std::string> texts;
  if (choice.is_array())
    for (const Json& entry : choice)
      if (entry.is_string()) texts.push_back(entry.get<std::string>());
  if (texts.empty() || texts.size() != choice.size())
    return refuse_field(field, "a list of strings expected", "invalid_type");
  return compiled(compile_choice(texts, engine.vocabulary()), field);
}

// A schema is given as an object, or (by older clients) as its text.
Answer schema_or_text(const Json& schema, const ServeLimits& limits, Engine& engine,
                      const char* field) {
  if (!schema.is_string()) return schema_constraint(schema, limits, engine, field);
  const auto text = schema.get<std::string>();
  if (text.size() > limits.schema_bytes) return too_large(text.size(), limits, field);
  return compiled(compile_json_schema(text, engine.vocabulary()), field);
}

Answer of_response_format(const Json& format, const ServeLimits& limits, Engine& engine) {
  FieldReader fields(format, "response_format.");
  std::string type;
  fields.text("type", type);
  if (!fields.ok()) return refuse(fields.error());
  if (type == "text") return ConstraintPointer();
  if (type == "json_object")
    return compiled(compile_json_object(engine.vocabulary()), "response_format");
  if (type != "json_schema")
    return refuse_field("response_format.type", "text, json_object or json_schema expected",
                        "unsupported_value");
  const Json* named = fields.object("json_schema");
  const Json* schema = named == nullptr ? nullptr : FieldReader(*named).find("schema");
  if (!fields.ok()) return refuse(fields.error());
  if (schema == nullptr)
    return refuse_field("response_format.json_schema.schema", "a JSON schema expected, found none");
  return schema_constraint(*schema, limits, engine, "response_format.json_schema.schema");
}

Answer of_structured_outputs(const Json& outputs, const ServeLimits& limits, Engine& engine) {
  FieldReader fields(outputs, "structured_outputs.");
  bool any_object = false;
  fields.boolean("json_object", any_object);
  if (!fields.ok()) return refuse(fields.error());
  if (fields.has("json") + fields.has("regex") + fields.has("choice") + any_object > 1)
    return refuse_field("structured_outputs", "the answer's format is given more than once");
  if (const Json* schema = fields.find("json"))
    return schema_or_text(*schema, limits, engine, "structured_outputs.json");
  if (const Json* regex = fields.find("regex"))
    return regex_constraint(*regex, limits, engine, "structured_outputs.regex");
  if (const Json* choice = fields.find("choice"))
    return choice_constraint(*choice, engine, "structured_outputs.choice");
  if (any_object)
    return compiled(compile_json_object(engine.vocabulary()), "structured_outputs.json_object");
  return refuse_field("structured_outputs",
                      "one of json, regex, choice or json_object expected; grammars are not "
                      "supported by this server",
                      "unsupported_value");
}

}  // namespace

ApiResult<ConstraintPointer> schema_constraint(const Json& schema, const ServeLimits& limits,
                                               Engine& engine, const char* field) {
  if (!schema.is_object() && !schema.is_boolean())
    return refuse_field(field, fmt::format("a JSON schema expected, found {}", type_text(schema)),
                        "invalid_type");
  const std::string text = schema.dump();
  if (text.size() > limits.schema_bytes) return too_large(text.size(), limits, field);
  return compiled(compile_json_schema(text, engine.vocabulary()), field);
}

ApiResult<ConstraintPointer> read_answer_format(const Json& body, const ServeLimits& limits,
                                                Engine& engine) {
  FieldReader fields(body);
  fields.only_absent("guided_grammar", "grammars are not supported by this server");
  const Json* format = fields.object("response_format");
  const Json* outputs = fields.object("structured_outputs");
  if (!fields.ok()) return refuse(fields.error());
  const bool some_format = format != nullptr && format->value("type", Json()) != Json("text");
  const int ways = static_cast<int>(some_format) + static_cast<int>(outputs != nullptr) +
                   static_cast<int>(fields.has("guided_json")) +
                   static_cast<int>(fields.has("guided_regex")) +
                   static_cast<int>(fields.has("guided_choice"));
  if (ways > 1)
    return refuse_field("response_format", "the answer's format is given more than once");
  if (outputs != nullptr) return of_structured_outputs(*outputs, limits, engine);
  if (const Json* schema = fields.find("guided_json"))
    return schema_or_text(*schema, limits, engine, "guided_json");
  if (const Json* regex = fields.find("guided_regex"))
    return regex_constraint(*regex, limits, engine, "guided_regex");
  if (const Json* choice = fields.find("guided_choice"))
    return choice_constraint(*choice, engine, "guided_choice");
  if (format != nullptr) return of_response_format(*format, limits, engine);
  return ConstraintPointer();
}

}  // namespace spear
