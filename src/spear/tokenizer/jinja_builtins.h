// What a chat template may call: filters, tests, methods and functions, by Jinja2's and Python's
// names and rules. All work is paid from a budget, so that no template runs or grows without end.
// One owner, one thread.
#pragma once

#include <cstddef>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spear/tokenizer/jinja_value.h"

namespace spear::jinja {

// Steps and bytes that a rendering may still spend. Throws Failure when they are gone.
class Budget {
 public:
  void step() { pay(1); }
  void bytes(size_t count) { pay(1 + count / 32); }
  // Before a text of that size is built, or `more` is added to one.
  void text(size_t size) { append(0, size); }
  void append(size_t size, size_t more) {
    require_text(size + more);
    bytes(more);
  }
  void items(size_t count) { pay(1 + count); }
  [[nodiscard]] static size_t text_limit();

 private:
  void pay(size_t steps);
  static void require_text(size_t size);
  size_t left_ = 4'000'000;
};

struct Arguments {
  std::string callee;  // for error messages: "the filter join"
  int line = 0;
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at that place or of that name; null when absent.
  [[nodiscard]] const Value* find(size_t place, std::string_view name) const;
  [[nodiscard]] std::string text(size_t place, std::string_view name,
                                 std::string_view otherwise) const;
  [[nodiscard]] int64_t integer(size_t place, std::string_view name, int64_t otherwise) const;
  [[nodiscard]] bool flag(size_t place, std::string_view name, bool otherwise) const;
  // Refuses more arguments, or other names, than those.
  void allow(size_t places, std::initializer_list<std::string_view> names) const;
  [[noreturn]] void bad(const std::string& what) const;
};

bool is_filter(std::string_view name);
bool is_test(std::string_view name);
bool is_function(std::string_view name);

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments,
                   Budget& budget);
bool apply_test(std::string_view name, const Value& value, const Arguments& arguments);
Value call_method(const Value& self, std::string_view name, const Arguments& arguments,
                  Budget& budget);
Value call_function(std::string_view name, const Arguments& arguments, const std::tm& now,
                    Budget& budget);

// value.name and value[key]; undefined when there is no such thing, an error on what is undefined
// itself.
Value attribute_of(const Value& value, std::string_view name, int line);
Value item_of(const Value& value, const Value& key, int line, Budget& budget);
Value slice_of(const Value& value, const Value* start, const Value* stop, const Value* step,
               int line, Budget& budget);
// What `for x in value` goes through.
std::vector<Value> items_of(const Value& value, int line, Budget& budget);
bool contains(const Value& container, const Value& item, int line);

// The state of a for loop, which the body sees as `loop`.
struct Loop {
  std::shared_ptr<const std::vector<Value>> items;
  size_t at = 0;
  std::vector<Value> last_changed;
};

// Text by characters, as Python counts them.
std::vector<std::string_view> characters(std::string_view text);
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);
std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t count, Budget& budget);
// chars null: white space.
std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right);

}  // namespace spear::jinja
