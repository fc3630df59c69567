// Jinja2's filters and tests.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <numeric>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/jinja_builtins.h"
#include "spear/tokenizer/jinja_lexer.h"

namespace spear::jinja {
namespace {

using FilterFunction = Value (*)(const Value&, const Arguments&, Budget&);
using TestFunction = bool (*)(const Value&, const Arguments&);

std::string text_of(const Value& value) {
  return to_text(value, Budget::text_limit());
}

Value undefined(std::string_view name) {
  return {Undefined{std::string(name)}};
}

// --- text

Value filter_string(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  std::string text = text_of(value);
  budget.bytes(text.size());
  return {std::move(text)};
}

Value filter_trim(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(1, {"chars"});
  const std::string text = text_of(value);
  budget.bytes(text.size());
  const std::string chars = arguments.text(0, "chars", "");
  const Value* given = arguments.find(0, "chars");
  const bool spaces = given == nullptr || given->is_none();
  return {std::string(strip(text, spaces ? nullptr : &chars, true, true))};
}

template <std::string (*change)(std::string_view)>
Value filter_text(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  const std::string text = text_of(value);
  budget.bytes(text.size());
  return {change(text)};
}

Value filter_replace(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(3, {"old", "new", "count"});
  const Value* from = arguments.find(0, "old");
  const Value* to = arguments.find(1, "new");
  if (from == nullptr || to == nullptr) arguments.bad("needs two arguments");
  return {replace(text_of(value), text_of(*from), text_of(*to), arguments.integer(2, "count", -1),
                  budget)};
}

Value filter_indent(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(3, {"width", "first", "blank"});
  const Value* width = arguments.find(0, "width");
  std::string margin;
  if (width != nullptr && width->text() != nullptr) {
    margin = *width->text();
  } else {
    const int64_t count = std::clamp<int64_t>(arguments.integer(0, "width", 4), 0, 1000);
    margin.assign(static_cast<size_t>(count), ' ');
  }
  const bool blank = arguments.flag(2, "blank", false);
  const std::string text = text_of(value);
  const auto lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  budget.text(text.size() + lines * margin.size());
  std::string out = arguments.flag(1, "first", false) ? margin : "";
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (at > 0) {
      out.push_back('\n');
      if (blank || end > at) out.append(margin);
    }
    out.append(text, at, end - at);
    at = end + 1;
  }
  return {std::move(out)};
}

Value filter_tojson(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(1, {"indent", "ensure_ascii", "sort_keys"});
  const Value* indent = arguments.find(0, "indent");
  const bool one_line = indent == nullptr || indent->is_none();
  const auto width =
      one_line ? -1
               : static_cast<int>(std::clamp<int64_t>(arguments.integer(0, "indent", 0), 0, 64));
  if (value.is_undefined()) arguments.bad("is given something undefined");
  std::string text = to_json(value, width, arguments.flag(9, "ensure_ascii", false),
                             arguments.flag(9, "sort_keys", false), Budget::text_limit());
  budget.bytes(text.size());
  return {std::move(text)};
}

// --- any value

Value filter_default(const Value& value, const Arguments& arguments, Budget&) {
  arguments.allow(2, {"default_value", "boolean"});
  const bool absent =
      value.is_undefined() || (arguments.flag(1, "boolean", false) && !is_true(value));
  if (!absent) return value;
  const Value* otherwise = arguments.find(0, "default_value");
  return otherwise == nullptr ? Value{std::string()} : *otherwise;
}

Value filter_length(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  if (const std::string* text = value.text()) {
    budget.bytes(text->size());
    return {static_cast<int64_t>(characters(*text).size())};
  }
  return {static_cast<int64_t>(items_of(value, arguments.line, budget).size())};
}

Value filter_safe(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  std::string text = text_of(value);
  budget.bytes(text.size());
  return {Markup{std::move(text)}};
}

// --- numbers

Value filter_int(const Value& value, const Arguments& arguments, Budget&) {
  arguments.allow(1, {"default"});
  if (const auto* integer = value.get<int64_t>()) return {*integer};
  double real = std::nan("");
  if (value.is_number()) real = as_double(value);
  if (const std::string* text = value.text()) {
    const std::string_view digits = strip(*text, nullptr, true, true);
    int64_t integer = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), integer);
    if (parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size()) return {integer};
    std::from_chars(digits.data(), digits.data() + digits.size(), real);
  }
  if (std::fabs(real) < 9e18) return {static_cast<int64_t>(real)};
  return {arguments.integer(0, "default", 0)};
}

Value filter_float(const Value& value, const Arguments& arguments, Budget&) {
  arguments.allow(1, {"default"});
  if (value.is_number()) return {as_double(value)};
  if (const std::string* text = value.text()) {
    const std::string_view digits = strip(*text, nullptr, true, true);
    double real = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), real);
    if (parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size()) return {real};
  }
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value{0.0} : *otherwise;
}

Value filter_abs(const Value& value, const Arguments& arguments, Budget&) {
  arguments.allow(0, {});
  if (const auto* integer = value.get<int64_t>(); integer != nullptr && *integer != INT64_MIN)
    return {std::abs(*integer)};
  if (!value.is_number()) arguments.bad(fmt::format("takes a number, not {}", type_name(value)));
  return {std::fabs(as_double(value))};
}

// --- lists

Value filter_list(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  return make_list(items_of(value, arguments.line, budget));
}

Value filter_first(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  const std::vector<Value> items = items_of(value, arguments.line, budget);
  return items.empty() ? undefined("the first item of an empty list") : items.front();
}

Value filter_last(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  const std::vector<Value> items = items_of(value, arguments.line, budget);
  return items.empty() ? undefined("the last item of an empty list") : items.back();
}

Value filter_reverse(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  std::vector<Value> items = items_of(value, arguments.line, budget);
  std::reverse(items.begin(), items.end());
  if (value.text() == nullptr) return make_list(std::move(items));
  std::string out;
  for (const Value& item : items) out += *item.text();
  return {std::move(out)};
}

// item.a.b for the attribute "a.b"
Value attribute_path(Value value, std::string_view path, int line, Budget& budget) {
  while (!path.empty()) {
    const size_t point = std::min(path.find('.'), path.size());
    const std::string_view name = path.substr(0, point);
    int64_t place = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), place);
    const bool number = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
    value = item_of(value, number ? Value{place} : Value{std::string(name)}, line, budget);
    path.remove_prefix(std::min(point + 1, path.size()));
  }
  return value;
}

Value filter_join(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(2, {"d", "attribute"});
  const Value* separator = arguments.find(0, "d");
  const std::string between = separator == nullptr ? "" : text_of(*separator);
  const std::string attribute = arguments.text(1, "attribute", "");
  std::string out;
  bool first = true;
  for (const Value& item : items_of(value, arguments.line, budget)) {
    const std::string text = text_of(attribute_path(item, attribute, arguments.line, budget));
    budget.append(out.size(), between.size() + text.size());
    if (!std::exchange(first, false)) out.append(between);
    out.append(text);
  }
  return {std::move(out)};
}

Value filter_items(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  if (value.is_undefined()) return make_list({});
  if (value.dict() == nullptr) arguments.bad(fmt::format("takes a dict, not {}", type_name(value)));
  return call_method(value, "items", arguments, budget);
}

// The arguments behind the first `skip`, for the filter or test that is named among them.
Arguments rest_of(const Arguments& arguments, size_t skip, std::string callee) {
  Arguments rest;
  rest.callee = std::move(callee);
  rest.line = arguments.line;
  rest.positional.assign(arguments.positional.begin() + static_cast<ptrdiff_t>(skip),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Value filter_map(const Value& value, const Arguments& arguments, Budget& budget) {
  std::vector<Value> out;
  const std::vector<Value> items = items_of(value, arguments.line, budget);
  if (arguments.positional.empty()) {
    arguments.allow(0, {"attribute", "default"});
    const std::string path = arguments.text(0, "attribute", "");
    if (path.empty()) arguments.bad("needs a filter or an attribute");
    const Value* otherwise = arguments.find(1, "default");
    for (const Value& item : items) {
      Value found = attribute_path(item, path, arguments.line, budget);
      out.push_back(found.is_undefined() && otherwise != nullptr ? *otherwise : std::move(found));
    }
    return make_list(std::move(out));
  }
  const std::string name = arguments.text(0, "filter", "");
  if (!is_filter(name))
    template_unsupported(arguments.line, fmt::format("the filter {}", printable(name, 40)));
  const Arguments rest = rest_of(arguments, 1, "the filter " + name);
  for (const Value& item : items) out.push_back(apply_filter(name, item, rest, budget));
  return make_list(std::move(out));
}

// select, reject (by the item) and selectattr, rejectattr (by an attribute of it)
Value choose(const Value& value, const Arguments& arguments, bool by_attribute, bool wanted,
             Budget& budget) {
  const size_t place = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty()) arguments.bad("needs an attribute");
  const std::string path = by_attribute ? arguments.text(0, "attribute", "") : "";
  const bool tested = arguments.positional.size() > place;
  const std::string name = tested ? arguments.text(place, "test", "") : "";
  if (tested && !is_test(name))
    template_unsupported(arguments.line, fmt::format("the test {}", printable(name, 40)));
  const Arguments rest = rest_of(arguments, tested ? place + 1 : place, "the test " + name);
  std::vector<Value> out;
  for (const Value& item : items_of(value, arguments.line, budget)) {
    const Value judged = attribute_path(item, path, arguments.line, budget);
    if ((tested ? apply_test(name, judged, rest) : is_true(judged)) == wanted) out.push_back(item);
  }
  return make_list(std::move(out));
}

template <bool by_attribute, bool wanted>
Value filter_choose(const Value& value, const Arguments& arguments, Budget& budget) {
  return choose(value, arguments, by_attribute, wanted, budget);
}

// Sorting ignores case unless told not to.
Value sort_key(const Value& value, bool case_sensitive) {
  if (case_sensitive || value.text() == nullptr) return value;
  return {lower(*value.text())};
}

Value filter_sort(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(3, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = arguments.flag(1, "case_sensitive", false);
  const std::string path = arguments.text(2, "attribute", "");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items_of(value, arguments.line, budget))
    keyed.emplace_back(sort_key(attribute_path(item, path, arguments.line, budget), case_sensitive),
                       item);
  const bool reverse = arguments.flag(0, "reverse", false);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    budget.step();
    return reverse ? less(b.first, a.first) : less(a.first, b.first);
  });
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return make_list(std::move(out));
}

Value filter_dictsort(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(1, {"case_sensitive"});
  if (value.dict() == nullptr) arguments.bad(fmt::format("takes a dict, not {}", type_name(value)));
  Arguments by_key = arguments;
  by_key.positional = {Value{false}, Value{arguments.flag(0, "case_sensitive", false)},
                       Value{std::string("0")}};
  by_key.named.clear();
  const Arguments none{arguments.callee, arguments.line, {}, {}};
  return filter_sort(call_method(value, "items", none, budget), by_key, budget);
}

Value filter_unique(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  std::vector<Value> out;
  for (const Value& item : items_of(value, arguments.line, budget)) {
    budget.items(out.size());
    const Value key = sort_key(item, false);
    const bool seen = std::any_of(out.begin(), out.end(), [&key](const Value& other) {
      return equal(sort_key(other, false), key);
    });
    if (!seen) out.push_back(item);
  }
  return make_list(std::move(out));
}

template <bool largest>
Value filter_extreme(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(0, {});
  const std::vector<Value> items = items_of(value, arguments.line, budget);
  if (items.empty()) return undefined("the extreme of an empty list");
  const auto by_key = [](const Value& a, const Value& b) {
    return less(sort_key(a, false), sort_key(b, false));
  };
  return largest ? *std::max_element(items.begin(), items.end(), by_key)
                 : *std::min_element(items.begin(), items.end(), by_key);
}

Value filter_sum(const Value& value, const Arguments& arguments, Budget& budget) {
  arguments.allow(1, {"attribute"});
  const std::string path = arguments.text(0, "attribute", "");
  double real = 0;
  int64_t integer = 0;
  bool exact = true;
  for (const Value& item : items_of(value, arguments.line, budget)) {
    const Value number = attribute_path(item, path, arguments.line, budget);
    if (!number.is_number()) arguments.bad(fmt::format("adds numbers, not {}", type_name(number)));
    real += as_double(number);
    exact = exact && number.get<double>() == nullptr &&
            !__builtin_add_overflow(integer, static_cast<int64_t>(as_double(number)), &integer);
  }
  return exact ? Value{integer} : Value{real};
}

constexpr std::pair<std::string_view, FilterFunction> kFilters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_text<capitalize>},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"float", filter_float},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_text<lower>},
    {"map", filter_map},
    {"max", filter_extreme<true>},
    {"min", filter_extreme<false>},
    {"reject", filter_choose<false, false>},
    {"rejectattr", filter_choose<true, false>},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"safe", filter_safe},
    {"select", filter_choose<false, true>},
    {"selectattr", filter_choose<true, true>},
    {"sort", filter_sort},
    {"string", filter_string},
    {"sum", filter_sum},
    {"title", filter_text<title>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"unique", filter_unique},
    {"upper", filter_text<upper>},
};

// --- tests

const Value& only(const Arguments& arguments) {
  if (arguments.positional.size() != 1) arguments.bad("takes one argument");
  return arguments.positional.front();
}

int64_t integer_of(const Value& value, const Arguments& arguments) {
  const auto* integer = value.get<int64_t>();
  if (integer == nullptr) arguments.bad(fmt::format("takes an integer, not {}", type_name(value)));
  return *integer;
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.text() != nullptr || value.list() != nullptr ||
         value.dict() != nullptr;
}

bool is_callable(const Value& value) {
  return value.get<Method>() != nullptr || value.get<Function>() != nullptr ||
         value.get<std::shared_ptr<const Macro>>() != nullptr;
}

template <bool wanted>
bool test_bool(const Value& value, const Arguments&) {
  return value.get<bool>() != nullptr && *value.get<bool>() == wanted;
}

template <class T>
bool test_type(const Value& value, const Arguments&) {
  return value.get<T>() != nullptr;
}

bool test_equal(const Value& value, const Arguments& arguments) {
  return equal(value, only(arguments));
}
bool test_unequal(const Value& value, const Arguments& arguments) {
  return !equal(value, only(arguments));
}
bool test_less(const Value& value, const Arguments& arguments) {
  return less(value, only(arguments));
}
bool test_greater(const Value& value, const Arguments& arguments) {
  return less(only(arguments), value);
}
bool test_at_most(const Value& value, const Arguments& arguments) {
  return !less(only(arguments), value);
}
bool test_at_least(const Value& value, const Arguments& arguments) {
  return !less(value, only(arguments));
}

constexpr std::pair<std::string_view, TestFunction> kTests[] = {
    {"!=", test_unequal},
    {"==", test_equal},
    {"boolean", test_type<bool>},
    {"callable", [](const Value& v, const Arguments&) { return is_callable(v); }},
    {"defined", [](const Value& v, const Arguments&) { return !v.is_undefined(); }},
    {"divisibleby",
     [](const Value& v, const Arguments& a) {
       const int64_t by = integer_of(only(a), a);
       if (by == 0) a.bad("divides by 0");
       return by == -1 || integer_of(v, a) % by == 0;
     }},
    {"eq", test_equal},
    {"equalto", test_equal},
    {"even", [](const Value& v, const Arguments& a) { return integer_of(v, a) % 2 == 0; }},
    {"false", test_bool<false>},
    {"float", test_type<double>},
    {"ge", test_at_least},
    {"greaterthan", test_greater},
    {"gt", test_greater},
    {"in", [](const Value& v, const Arguments& a) { return contains(only(a), v, a.line); }},
    {"integer", test_type<int64_t>},
    {"iterable", [](const Value& v, const Arguments&) { return is_iterable(v); }},
    {"le", test_at_most},
    {"lessthan", test_less},
    {"lt", test_less},
    {"mapping", test_type<DictPtr>},
    {"ne", test_unequal},
    {"none", test_type<std::nullptr_t>},
    {"number", [](const Value& v, const Arguments&) { return v.is_number(); }},
    {"odd", [](const Value& v, const Arguments& a) { return integer_of(v, a) % 2 != 0; }},
    {"sequence", [](const Value& v, const Arguments&) { return is_iterable(v); }},
    {"string", [](const Value& v,
                  const Arguments&) { return v.text() != nullptr || v.get<Markup>() != nullptr; }},
    {"true", test_bool<true>},
    {"undefined", [](const Value& v, const Arguments&) { return v.is_undefined(); }},
};

template <class Table>
auto* find_in(const Table& table, std::string_view name) {
  const auto* found = std::find_if(std::begin(table), std::end(table),
                                   [name](const auto& entry) { return entry.first == name; });
  return found == std::end(table) ? nullptr : found;
}

}  // namespace

bool is_filter(std::string_view name) {
  return find_in(kFilters, name) != nullptr;
}
bool is_test(std::string_view name) {
  return find_in(kTests, name) != nullptr;
}

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments,
                   Budget& budget) {
  budget.step();
  if (value.get<Markup>() != nullptr)
    template_unsupported(arguments.line, fmt::format("the filter {} after safe", name));
  return find_in(kFilters, name)->second(value, arguments, budget);
}

bool apply_test(std::string_view name, const Value& value, const Arguments& arguments) {
  return find_in(kTests, name)->second(value, arguments);
}

}  // namespace spear::jinja
