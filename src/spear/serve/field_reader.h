// Reads the fields of a JSON object that a client sent. Absent and null leave a value as it was;
// a wrong type or range is refused with the field's name, what was found and what is expected. The
// first refusal stays, so a caller reads all its fields and asks once. One thread.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "spear/base/json_fwd.h"
#include "spear/serve/api_error.h"

namespace spear {

class FieldReader {
 public:
  // `path` stands before names in errors ("messages[0].").
  explicit FieldReader(const Json& object, std::string path = {});

  // The value; null where it is absent or null.
  [[nodiscard]] const Json* find(const char* name) const;
  [[nodiscard]] bool has(const char* name) const { return find(name) != nullptr; }

  void boolean(const char* name, bool& value);
  void number(const char* name, double& value);
  void text(const char* name, std::string& value);
  template <class Integer>
  void integer(const char* name, Integer& value, int64_t low = std::numeric_limits<Integer>::min(),
               int64_t high = std::numeric_limits<Integer>::max()) {
    if (const std::optional<int64_t> found = whole(name, low, high))
      value = static_cast<Integer>(*found);
  }
  // The value when it is there and of that type.
  const Json* array(const char* name, size_t most);
  const Json* object(const char* name);

  void refuse(const char* name, std::string message, std::string code = "invalid_value");
  // For fields that are understood, but only with one value: any other is refused by name.
  void only_false(const char* name);
  void only_absent(const char* name, const char* why);

  [[nodiscard]] bool ok() const { return !error_; }
  [[nodiscard]] const ApiError& error() const { return *error_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::optional<int64_t> whole(const char* name, int64_t low, int64_t high);
  void wrong_type(const char* name, const char* expected, const Json& found);

  const Json& object_;
  std::string path_;
  std::optional<ApiError> error_;
};

// A whole number, be it written 3 or 3.0.
std::optional<int64_t> whole_number(const Json& value);
// "a string", "null": what was found, for people.
const char* type_text(const Json& value);

}  // namespace spear
