// The values of a chat template at work, with Python's rules for truth, equality, order and
// printing. Lists and dictionaries never change once built; only namespaces do. One owner, one
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "spear/base/json_fwd.h"

namespace spear::jinja {

struct Value;
struct Macro;
struct Loop;

struct Undefined {
  std::string name;  // what was looked for, for the error message
};

struct List {
  std::vector<Value> items;
  bool tuple = false;  // printed with parentheses
};

struct Dict {
  std::vector<std::pair<std::string, Value>> items;  // in order of insertion
  std::unordered_map<std::string, size_t> index;

  [[nodiscard]] const Value* find(std::string_view key) const;
  void set(const std::string& key, Value value);
};

struct Namespace {
  Dict fields;
};

// "abc".strip or messages.items before the call: a method and what it belongs to.
struct Method {
  std::shared_ptr<const Value> self;
  std::string name;
};

// A function of the environment, by name.
struct Function {
  std::string name;
};

// What the filter safe returns. Python escapes what is joined to it; spear only prints it.
struct Markup {
  std::string text;
};

using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;

struct Value {
  std::variant<Undefined, std::nullptr_t, bool, int64_t, double, std::string, ListPtr, DictPtr,
               std::shared_ptr<Namespace>, std::shared_ptr<const Macro>, std::shared_ptr<Loop>,
               Method, Function, Markup>
      data;

  template <class T>
  [[nodiscard]] const T* get() const {
    return std::get_if<T>(&data);
  }
  [[nodiscard]] const List* list() const;
  [[nodiscard]] const Dict* dict() const;
  [[nodiscard]] const std::string* text() const { return get<std::string>(); }
  [[nodiscard]] bool is_undefined() const { return get<Undefined>() != nullptr; }
  [[nodiscard]] bool is_none() const { return get<std::nullptr_t>() != nullptr; }
  [[nodiscard]] bool is_number() const;  // Python counts booleans among them
};

Value make_list(std::vector<Value> items, bool tuple = false);
Value make_dict(Dict dict);

// Throws Failure for values nested too deeply.
Value from_json(const Json& json);

bool is_true(const Value& value);
bool equal(const Value& a, const Value& b);
// Throws Failure when Python would not order the two.
bool less(const Value& a, const Value& b);
std::string type_name(const Value& value);

// What {{ value }} prints, what it prints inside a list, and json.dumps (indent < 0: on one line).
// Each throws Failure when the text grows over `limit` bytes.
std::string to_text(const Value& value, size_t limit);
std::string to_repr(const Value& value, size_t limit);
std::string to_json(const Value& value, int indent, bool ascii, bool sort_keys, size_t limit);

double as_double(const Value& number);

}  // namespace spear::jinja
