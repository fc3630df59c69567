// Reads fields of a hostile JSON object; every surprise is a Failure that names the file and the
// field's path. A view: lives no longer than its value. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "spear/base/json.h"

namespace spear {

class JsonReader {
 public:
  JsonReader(const SortedJson& value, std::string_view source, std::string path)
      : value_(&value), source_(source), path_(std::move(path)) {}

  [[nodiscard]] const SortedJson& value() const { return *value_; }
  [[nodiscard]] const std::string& path() const { return path_; }

  // The member, if it is there and not null.
  [[nodiscard]] std::optional<JsonReader> find(std::string_view key) const;
  [[nodiscard]] JsonReader at(std::string_view key) const;
  [[nodiscard]] JsonReader at(size_t index) const;

  [[nodiscard]] std::string text() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] int64_t integer(int64_t low, int64_t high) const;
  [[nodiscard]] size_t array_size() const;

  [[nodiscard]] std::string text_or(std::string_view key, std::string_view otherwise) const;
  [[nodiscard]] bool boolean_or(std::string_view key, bool otherwise) const;
  // The member "type".
  [[nodiscard]] std::string type() const { return at("type").text(); }

  [[noreturn]] void expected(std::string_view what) const;
  [[noreturn]] void unsupported(std::string_view what) const;

 private:
  const SortedJson* value_;
  std::string_view source_;
  std::string path_;
};

}  // namespace spear
