#include "spear/engine/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/base/printable.h"
#include "spear/engine/json_patterns.h"
#include "spear/engine/regex.h"

namespace spear {
namespace {

constexpr size_t kMostBytes = 65536;
constexpr int kMostDepth = 64;     // of the schema, references followed
constexpr int kMostRecursion = 6;  // of one reference within itself
constexpr int kFreeDepth = 4;      // of values that nothing describes
constexpr int32_t kMostCount = 1000;
constexpr size_t kMostOptional = 64;  // properties of an object that may be absent
constexpr int64_t kMostWork = 20000;  // subschemas looked at, references followed

const std::set<std::string> kAnnotations = {
    "$schema", "$id",      "$comment",   "$defs",    "definitions", "title",  "description",
    "default", "examples", "deprecated", "readOnly", "writeOnly",   "$anchor"};

const std::pair<const char*, const char*> kFormats[] = {
    {"date", "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"},
    {"time",
     "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][01][0-9]:[0-5][0-9])"},
    {"date-time",
     "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
     "(\\.[0-9]{1,6})?(Z|[+-][01][0-9]:[0-5][0-9])"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4",
     "((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|"
     "[1-9]?[0-9])"},
};

// Throws Failure inside; parse_json_schema() turns it into a Result.
class Compiler {
 public:
  explicit Compiler(const Json& root) : root_(root) {}

  PatternPointer compile(const Json& schema, const std::string& at, int depth) {
    if (depth > kMostDepth) refuse(at, fmt::format("nested more than {} deep", kMostDepth));
    if (++work_ > kMostWork) refuse(at, "the schema is too large once its references are followed");
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) return nothing();
      return json::value(kFreeDepth);
    }
    if (!schema.is_object()) refuse(at, "an object or a boolean expected");
    check_keywords(schema, at);
    if (schema.contains("$ref")) return reference(schema, at, depth);
    if (schema.contains("const"))
      return only_with(schema, at, "const", exactly(schema["const"], at));
    if (schema.contains("enum")) return enumeration(schema, at);
    for (const char* keyword : {"anyOf", "oneOf", "allOf"})
      if (schema.contains(keyword)) return combined(schema, keyword, at, depth);
    return typed(schema, at, depth);
  }

 private:
  [[noreturn]] static void refuse(const std::string& at, std::string_view what) {
    throw Failure(ErrorCode::kUsage, fmt::format("schema, {}: {}", printable(at), what));
  }

  static void check_keywords(const Json& schema, const std::string& at) {
    static constexpr std::array kKnown = {"$ref",
                                          "const",
                                          "enum",
                                          "anyOf",
                                          "oneOf",
                                          "allOf",
                                          "type",
                                          "properties",
                                          "required",
                                          "additionalProperties",
                                          "items",
                                          "prefixItems",
                                          "minItems",
                                          "maxItems",
                                          "minLength",
                                          "maxLength",
                                          "pattern",
                                          "format",
                                          "minimum",
                                          "maximum",
                                          "exclusiveMinimum",
                                          "exclusiveMaximum"};
    for (const auto& [key, unused] : schema.items())
      if (std::ranges::find(kKnown, key) == kKnown.end() && !kAnnotations.contains(key))
        refuse(at, fmt::format("keyword {} is not supported", printable(key)));
  }

  // Keywords beside one that settles everything would have to hold too.
  static PatternPointer only_with(const Json& schema, const std::string& at, const char* keyword,
                                  PatternPointer pattern) {
    for (const auto& [key, unused] : schema.items())
      if (key != keyword && key != "type" && !kAnnotations.contains(key))
        refuse(at, fmt::format("{} beside '{}' is not supported", printable(key), keyword));
    return pattern;
  }

  PatternPointer reference(const Json& schema, const std::string& at, int depth) {
    only_with(schema, at, "$ref", nullptr);
    if (!schema["$ref"].is_string()) refuse(at, "$ref: a string expected");
    const auto name = schema["$ref"].get<std::string>();
    const Json* target = nullptr;
    if (name == "#") {
      target = &root_;
    } else if (name.starts_with("#/")) {
      try {
        target = &root_.at(Json::json_pointer(name.substr(1)));
      } catch (const Json::exception&) {
        target = nullptr;
      }
    }
    if (target == nullptr)
      refuse(at,
             fmt::format("$ref {}: a place in this schema (#/$defs/…) expected", printable(name)));
    const auto open = std::ranges::count(open_, target);
    if (open >= kMostRecursion) return nothing();  // deeper than that nothing nests
    open_.push_back(target);
    PatternPointer pattern = compile(*target, name, depth + 1);
    open_.pop_back();
    return pattern;
  }

  PatternPointer exactly(const Json& value, const std::string& at) {
    if (value.is_string()) return json::quoted_literal(value.get<std::string>());
    if (value.is_null() || value.is_boolean() || value.is_number()) return literal(value.dump());
    std::vector<PatternPointer> parts = {literal(value.is_array() ? "[" : "{"), json::space()};
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!first) parts.insert(parts.end(), {json::space(), literal(","), json::space()});
      first = false;
      if (value.is_object())
        parts.insert(parts.end(),
                     {json::quoted_literal(key), json::space(), literal(":"), json::space()});
      parts.push_back(exactly(item, at));
    }
    parts.insert(parts.end(), {json::space(), literal(value.is_array() ? "]" : "}")});
    return sequence(std::move(parts));
  }

  PatternPointer enumeration(const Json& schema, const std::string& at) {
    const Json& values = schema["enum"];
    if (!values.is_array() || values.empty() || values.size() > kMostCount)
      refuse(at, fmt::format("enum: an array of 1 to {} values expected", kMostCount));
    std::vector<PatternPointer> parts;
    for (const Json& value : values) {
      if (schema.contains("type") && !has_type(value, schema["type"])) continue;
      parts.push_back(exactly(value, at));
    }
    return only_with(schema, at, "enum", choice(std::move(parts)));
  }

  static bool has_type(const Json& value, const Json& type) {
    if (type.is_array())
      return std::ranges::any_of(type, [&](const Json& one) { return has_type(value, one); });
    if (!type.is_string()) return true;
    const auto name = type.get<std::string>();
    if (name == "number") return value.is_number();
    if (name == "integer") return value.is_number_integer();
    return name == value.type_name();
  }

  PatternPointer combined(const Json& schema, const char* keyword, const std::string& at,
                          int depth) {
    const Json& branches = schema[keyword];
    if (!branches.is_array() || branches.empty() || branches.size() > kMostCount)
      refuse(at, fmt::format("{}: an array of 1 to {} schemas expected", keyword, kMostCount));
    only_with(schema, at, keyword, nullptr);
    const std::string_view name = keyword;
    if (name == "allOf" && branches.size() > 1)
      refuse(at, "keyword 'allOf' of several schemas is not supported");
    if (name == "oneOf")
      for (size_t i = 0; i < branches.size(); ++i)
        for (size_t j = 0; j < i; ++j)
          if (!exclude_each_other(branches[i], branches[j]))
            refuse(at,
                   fmt::format("keyword 'oneOf': branches {} and {} may both hold, which is not "
                               "supported; anyOf is",
                               j, i));
    std::vector<PatternPointer> parts;
    for (size_t i = 0; i < branches.size(); ++i)
      parts.push_back(compile(branches[i], fmt::format("{}.{}[{}]", at, keyword, i), depth + 1));
    return choice(std::move(parts));
  }

  // Surely so: by type, or by a property that both require with different values.
  bool exclude_each_other(const Json& a, const Json& b) const {
    const Json& x = followed(a);
    const Json& y = followed(b);
    if (!x.is_object() || !y.is_object()) return false;
    if (different(x, y)) return true;
    if (!is_strings(x, "required") || !is_strings(y, "required")) return false;
    for (const Json& name : x["required"]) {
      if (std::ranges::find(y["required"], name) == y["required"].end()) continue;
      const auto key = name.get<std::string>();
      const auto property = [&](const Json& of) -> const Json* {
        const auto found = of.find("properties");
        return found == of.end() || !found->contains(key) ? nullptr : &followed((*found)[key]);
      };
      const Json* p = property(x);
      const Json* q = property(y);
      if (p != nullptr && q != nullptr && p->is_object() && q->is_object() && different(*p, *q))
        return true;
    }
    return false;
  }

  static bool is_strings(const Json& schema, const char* keyword) {
    const auto found = schema.find(keyword);
    return found != schema.end() && found->is_array() &&
           std::ranges::all_of(*found, [](const Json& v) { return v.is_string(); });
  }

  static bool different(const Json& x, const Json& y) {
    if (x.contains("const") && y.contains("const")) return x["const"] != y["const"];
    if (!x.contains("type") || !y.contains("type")) return false;
    if (!x["type"].is_string() || !y["type"].is_string() || x["type"] == y["type"]) return false;
    const auto numeric = [](const Json& t) { return t == "integer" || t == "number"; };
    return !(numeric(x["type"]) && numeric(y["type"]));
  }

  const Json& followed(const Json& schema) const {
    if (!schema.is_object() || !schema.contains("$ref") || !schema["$ref"].is_string())
      return schema;
    const auto name = schema["$ref"].get<std::string>();
    if (!name.starts_with("#/")) return schema;
    try {
      return root_.at(Json::json_pointer(name.substr(1)));
    } catch (const Json::exception&) {
      return schema;
    }
  }

  PatternPointer typed(const Json& schema, const std::string& at, int depth) {
    if (!schema.contains("type")) {
      if (schema.contains("properties")) return object(schema, at, depth);
      if (schema.contains("items") || schema.contains("prefixItems"))
        return array(schema, at, depth);
      for (const auto& [key, unused] : schema.items())
        if (!kAnnotations.contains(key))
          refuse(at, fmt::format("{} without 'type' is not supported", printable(key)));
      return json::value(kFreeDepth);
    }
    const Json& type = schema["type"];
    if (type.is_string()) return of_type(type.get<std::string>(), schema, at, depth);
    if (!type.is_array() || type.empty() || type.size() > 7) refuse(at, "type: not understood");
    std::vector<PatternPointer> parts;
    for (const Json& one : type) {
      if (!one.is_string()) refuse(at, "type: strings expected");
      parts.push_back(of_type(one.get<std::string>(), schema, at, depth));
    }
    return choice(std::move(parts));
  }

  PatternPointer of_type(const std::string& type, const Json& schema, const std::string& at,
                         int depth) {
    if (type == "null") return json::null();
    if (type == "boolean") return json::boolean();
    if (type == "string") return text(schema, at);
    if (type == "integer") return integer(schema, at);
    if (type == "array") return array(schema, at, depth);
    if (type == "object") return object(schema, at, depth);
    if (type != "number") refuse(at, fmt::format("type {} is not known", printable(type)));
    for (const char* bound : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
      if (schema.contains(bound))
        refuse(at, fmt::format("keyword '{}' is supported for integers only", bound));
    return json::number();
  }

  static int32_t count(const Json& schema, const char* keyword, int32_t absent,
                       const std::string& at) {
    if (!schema.contains(keyword)) return absent;
    const Json& value = schema[keyword];
    if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{kMostCount})
      refuse(at, fmt::format("{}: a whole number from 0 to {} expected", keyword, kMostCount));
    return value.get<int32_t>();
  }

  PatternPointer text(const Json& schema, const std::string& at) {
    const int32_t least = count(schema, "minLength", 0, at);
    const int32_t most = count(schema, "maxLength", Pattern::kUnbounded, at);
    if (most != Pattern::kUnbounded && most < least) refuse(at, "maxLength is below minLength");
    const bool bounded = schema.contains("minLength") || schema.contains("maxLength");
    if (schema.contains("pattern") + schema.contains("format") + bounded > 1)
      refuse(at, "of pattern, format and bounds of length only one is supported at a time");
    if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) refuse(at, "pattern: a string expected");
      return by_regex(schema["pattern"].get<std::string>(), at);
    }
    if (schema.contains("format")) {
      for (const auto& [name, regex] : kFormats)
        if (schema["format"] == name) return by_regex(fmt::format("^{}$", regex), at);
      refuse(at, fmt::format("format {} is not supported", printable(schema["format"].dump())));
    }
    return json::string(least, most);
  }

  // A pattern may hold anywhere in the string unless it says otherwise.
  static PatternPointer by_regex(const std::string& expression, const std::string& at) {
    const Result<Regex> regex = parse_regex(expression);
    if (!regex) refuse(at, fmt::format("pattern: {}", regex.error().message));
    const PatternPointer anything = repeat(character(inverted({})), 0, Pattern::kUnbounded);
    std::vector<PatternPointer> parts;
    if (!regex->begins) parts.push_back(anything);
    parts.push_back(regex->pattern);
    if (!regex->ends) parts.push_back(anything);
    return json::quoted(sequence(std::move(parts)));
  }

  static std::optional<int64_t> bound(const Json& schema, const char* keyword, int64_t exclusive,
                                      const std::string& at) {
    if (!schema.contains(keyword)) return std::nullopt;
    const Json& value = schema[keyword];
    constexpr double kLargest = 1e15;
    if (!value.is_number() || !(std::abs(value.get<double>()) <= kLargest))
      refuse(at, fmt::format("{}: a number of at most 10^15 expected", keyword));
    const auto real = value.get<double>();
    const double whole = exclusive == 0  ? (keyword[1] == 'i' ? std::ceil(real) : std::floor(real))
                         : exclusive > 0 ? std::floor(real) + 1
                                         : std::ceil(real) - 1;
    return static_cast<int64_t>(whole);
  }

  PatternPointer integer(const Json& schema, const std::string& at) {
    std::optional<int64_t> low = bound(schema, "minimum", 0, at);
    std::optional<int64_t> high = bound(schema, "maximum", 0, at);
    if (const auto above = bound(schema, "exclusiveMinimum", 1, at))
      low = std::max(low.value_or(*above), *above);
    if (const auto below = bound(schema, "exclusiveMaximum", -1, at))
      high = std::min(high.value_or(*below), *below);
    if (low && high && *low > *high) refuse(at, "no integer lies between the bounds");
    return json::integer_between(low, high);
  }

  PatternPointer array(const Json& schema, const std::string& at, int depth) {
    const int32_t least = count(schema, "minItems", 0, at);
    const int32_t most = count(schema, "maxItems", Pattern::kUnbounded, at);
    if (most != Pattern::kUnbounded && most < least) refuse(at, "maxItems is below minItems");
    if (schema.contains("prefixItems")) return tuple(schema, at, depth);
    const PatternPointer item = schema.contains("items")
                                    ? compile(schema["items"], at + ".items", depth + 1)
                                    : json::value(kFreeDepth - 1);
    return json::array(item, least, most);
  }

  // All of prefixItems and nothing after them.
  PatternPointer tuple(const Json& schema, const std::string& at, int depth) {
    const Json& items = schema["prefixItems"];
    const bool closed = schema.contains("items") && schema["items"] == false;
    if (!items.is_array() || items.empty()) refuse(at, "prefixItems: an array of schemas expected");
    if (!closed && schema.contains("items"))
      refuse(at, "'items' beside 'prefixItems' is supported as false only");
    if (schema.contains("minItems") || schema.contains("maxItems"))
      refuse(at, "minItems and maxItems beside 'prefixItems' are not supported");
    std::vector<PatternPointer> parts = {literal("["), json::space()};
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) parts.insert(parts.end(), {json::space(), literal(","), json::space()});
      parts.push_back(compile(items[i], fmt::format("{}.prefixItems[{}]", at, i), depth + 1));
    }
    parts.insert(parts.end(), {json::space(), literal("]")});
    return sequence(std::move(parts));
  }

  struct Member {
    PatternPointer pattern;
    bool required = false;
  };

  PatternPointer object(const Json& schema, const std::string& at, int depth) {
    std::vector<Member> members;
    std::set<std::string> required;
    if (schema.contains("required")) {
      if (!is_strings(schema, "required")) refuse(at, "required: an array of names expected");
      for (const Json& name : schema["required"]) required.insert(name.get<std::string>());
    }
    const Json none = Json::object();
    const Json& properties = schema.contains("properties") ? schema["properties"] : none;
    if (!properties.is_object()) refuse(at, "properties: an object expected");
    for (const auto& [name, property] : properties.items()) {
      const PatternPointer value =
          compile(property, fmt::format("{}.properties.{}", at, name), depth + 1);
      members.push_back({sequence({json::quoted_literal(name), json::space(), literal(":"),
                                   json::space(), value}),
                         required.erase(name) > 0});
    }
    if (!required.empty())
      refuse(at,
             fmt::format("required {} is not among the properties", printable(*required.begin())));
    if (members.empty()) return free_object(schema, at, depth);
    if (schema.contains("additionalProperties") && schema["additionalProperties"].is_object())
      refuse(at, "'additionalProperties' with a schema beside 'properties' is not supported");
    return members_in_order(members, at);
  }

  PatternPointer free_object(const Json& schema, const std::string& at, int depth) {
    if (!schema.contains("additionalProperties"))
      return json::object_of(json::value(kFreeDepth - 1));
    const Json& more = schema["additionalProperties"];
    if (more == false) return sequence({literal("{"), json::space(), literal("}")});
    return json::object_of(more == true ? json::value(kFreeDepth - 1)
                                        : compile(more, at + ".additionalProperties", depth + 1));
  }

  // Members in the schema's order, those that may be absent left out or not. With commas between
  // them: up to the first required one each may be the first, after it each brings its comma.
  static PatternPointer members_in_order(const std::vector<Member>& members,
                                         const std::string& at) {
    const PatternPointer comma = sequence({json::space(), literal(","), json::space()});
    const auto with_comma = [&](const Member& m) {
      const PatternPointer part = sequence({comma, m.pattern});
      return m.required ? part : optional(part);
    };
    size_t first = 0;  // the first required member
    while (first < members.size() && !members[first].required) ++first;
    if (first > kMostOptional)
      refuse(at, fmt::format("more than {} properties that may be absent before a required one",
                             kMostOptional));
    std::vector<PatternPointer> rest;
    for (size_t i = first + 1; i < members.size(); ++i) rest.push_back(with_comma(members[i]));
    std::vector<PatternPointer> starts;
    for (size_t start = 0; start < std::min(first + 1, members.size()); ++start) {
      std::vector<PatternPointer> parts = {members[start].pattern};
      for (size_t i = start + 1; i < std::min(first + 1, members.size()); ++i)
        parts.push_back(with_comma(members[i]));
      starts.push_back(sequence(std::move(parts)));
    }
    if (first == members.size()) starts.push_back(sequence({}));
    return sequence({literal("{"), json::space(), choice(std::move(starts)),
                     sequence(std::move(rest)), json::space(), literal("}")});
  }

  const Json& root_;
  std::vector<const Json*> open_;  // references that are being followed
  int64_t work_ = 0;
};

}  // namespace

Result<PatternPointer> parse_json_schema(std::string_view schema) {
  if (schema.size() > kMostBytes)
    return fail(ErrorCode::kUsage, fmt::format("schema: at most {} bytes expected, found {}",
                                               kMostBytes, schema.size()));
  const Result<Json> json = parse_json(schema, "schema", kMostDepth);
  if (!json) return fail(ErrorCode::kUsage, json.error().message);
  try {
    return Compiler(*json).compile(*json, "$", 0);
  } catch (const Failure& failure) {
    return tl::unexpected<Error>(failure.error());
  }
}

PatternPointer any_json_object(int depth) {
  return json::object_of(json::value(depth - 1));
}

}  // namespace spear
