#include "spear/serve/field_reader.h"

#include <cmath>

#include <fmt/format.h>

#include "spear/base/json.h"

namespace spear {
namespace {

std::string short_dump(const Json& value) {
  constexpr size_t kMost = 40;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "…";
  return text;
}

}  // namespace

const char* type_text(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

std::optional<int64_t> whole_number(const Json& value) {
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number <= kMost ? std::optional(static_cast<int64_t>(number)) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  constexpr double kExact = 9007199254740992.0;  // 2^53: every whole number up to it is a double
  if (!(std::abs(number) <= kExact) || number != std::trunc(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

FieldReader::FieldReader(const Json& object, std::string path)
    : object_(object), path_(std::move(path)) {}

const Json* FieldReader::find(const char* name) const {
  const auto at = object_.find(name);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

void FieldReader::refuse(const char* name, std::string message, std::string code) {
  if (error_) return;
  const std::string field = path_ + name;
  error_ = ApiError{400, field + ": " + std::move(message), field, std::move(code)};
}

void FieldReader::wrong_type(const char* name, const char* expected, const Json& found) {
  refuse(name, fmt::format("{} expected, found {}", expected, type_text(found)), "invalid_type");
}

void FieldReader::boolean(const char* name, bool& value) {
  const Json* found = find(name);
  if (found == nullptr) return;
  if (!found->is_boolean()) return wrong_type(name, "a boolean", *found);
  value = found->get<bool>();
}

void FieldReader::number(const char* name, double& value) {
  const Json* found = find(name);
  if (found == nullptr) return;
  if (!found->is_number()) return wrong_type(name, "a number", *found);
  value = found->get<double>();
}

void FieldReader::text(const char* name, std::string& value) {
  const Json* found = find(name);
  if (found == nullptr) return;
  if (!found->is_string()) return wrong_type(name, "a string", *found);
  value = found->get<std::string>();
}

std::optional<int64_t> FieldReader::whole(const char* name, int64_t low, int64_t high) {
  const Json* found = find(name);
  if (found == nullptr) return std::nullopt;
  if (!found->is_number()) {
    wrong_type(name, "a whole number", *found);
    return std::nullopt;
  }
  const std::optional<int64_t> number = whole_number(*found);
  if (number && *number >= low && *number <= high) return number;
  refuse(name, fmt::format("a whole number from {} to {} expected, found {}", low, high,
                           short_dump(*found)));
  return std::nullopt;
}

const Json* FieldReader::array(const char* name, size_t most) {
  const Json* found = find(name);
  if (found == nullptr) return nullptr;
  if (!found->is_array()) {
    wrong_type(name, "a list", *found);
    return nullptr;
  }
  if (found->size() <= most) return found;
  refuse(name, fmt::format("at most {} entries expected, found {}", most, found->size()));
  return nullptr;
}

const Json* FieldReader::object(const char* name) {
  const Json* found = find(name);
  if (found == nullptr || found->is_object()) return found;
  wrong_type(name, "an object", *found);
  return nullptr;
}

void FieldReader::only_false(const char* name) {
  bool value = false;
  boolean(name, value);
  if (value) refuse(name, "true is not supported by this server", "unsupported_value");
}

void FieldReader::only_absent(const char* name, const char* why) {
  if (has(name)) refuse(name, why, "unsupported_parameter");
}

}  // namespace spear
