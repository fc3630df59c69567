#include "spear/tokenizer/json_reader.h"

#include <cmath>

#include <fmt/format.h>

#include "spear/base/error.h"

namespace spear {

std::optional<JsonReader> JsonReader::find(std::string_view key) const {
  if (!value_->is_object()) expected("an object");
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonReader(*found, source_,
                    path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
}

JsonReader JsonReader::at(std::string_view key) const {
  if (std::optional<JsonReader> member = find(key)) return *member;
  throw Failure(ErrorCode::kBadFile, fmt::format("{}: {} has no field \"{}\"", source_,
                                                 path_.empty() ? "the file" : path_, key));
}

JsonReader JsonReader::at(size_t index) const {
  return JsonReader((*value_)[index], source_, fmt::format("{}[{}]", path_, index));
}

std::string JsonReader::text() const {
  if (!value_->is_string()) expected("a string");
  return value_->get<std::string>();
}

bool JsonReader::boolean() const {
  if (!value_->is_boolean()) expected("true or false");
  return value_->get<bool>();
}

double JsonReader::number() const {
  if (!value_->is_number()) expected("a number");
  return value_->get<double>();
}

int64_t JsonReader::integer(int64_t low, int64_t high) const {
  const bool fits = value_->is_number_integer() &&
                    !(value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX);
  const int64_t number = fits ? value_->get<int64_t>() : 0;
  if (!fits || number < low || number > high)
    expected(fmt::format("an integer from {} to {}", low, high));
  return number;
}

size_t JsonReader::array_size() const {
  if (!value_->is_array()) expected("an array");
  return value_->size();
}

std::string JsonReader::text_or(std::string_view key, std::string_view otherwise) const {
  const std::optional<JsonReader> member = find(key);
  return member ? member->text() : std::string(otherwise);
}

bool JsonReader::boolean_or(std::string_view key, bool otherwise) const {
  const std::optional<JsonReader> member = find(key);
  return member ? member->boolean() : otherwise;
}

void JsonReader::expected(std::string_view what) const {
  std::string found = value_->type_name();
  if (value_->is_primitive() && !value_->is_string()) found = value_->dump();
  throw Failure(ErrorCode::kBadFile, fmt::format("{}: {} is {}, expected {}", source_,
                                                 path_.empty() ? "the file" : path_, found, what));
}

void JsonReader::unsupported(std::string_view what) const {
  throw Failure(ErrorCode::kUnsupported,
                fmt::format("{}: {} {}, which spear does not run", source_, path_, what));
}

}  // namespace spear
