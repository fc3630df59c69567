// Methods of strings, lists and dictionaries, and the functions every template may call.
#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "spear/base/error.h"
#include "spear/base/printable.h"
#include "spear/tokenizer/jinja_builtins.h"
#include "spear/tokenizer/jinja_lexer.h"
#include "spear/tokenizer/utf8.h"

namespace spear::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;

Value list_of_texts(const std::vector<std::string_view>& parts, Budget& budget) {
  std::vector<Value> out;
  for (const std::string_view part : parts) {
    budget.bytes(part.size());
    out.push_back({std::string(part)});
  }
  return make_list(std::move(out));
}

// split() without a separator: at runs of white space. What is left at the limit keeps its far end.
std::vector<std::string_view> words(std::string_view text, int64_t limit, bool from_right) {
  std::vector<std::string_view> out;
  text = strip(text, nullptr, !from_right, from_right);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(out.size()) >= limit) {
      out.push_back(text);
      break;
    }
    // The longest stretch without white space at the chosen end.
    size_t length = 0;
    while (length < text.size()) {
      const std::string_view rest =
          from_right ? text.substr(0, text.size() - length) : text.substr(length);
      const std::string_view kept = strip(rest, nullptr, !from_right, from_right);
      if (kept.size() != rest.size()) break;
      size_t step = 1;
      if (from_right) {
        while (step < rest.size() &&
               (static_cast<uint8_t>(rest[rest.size() - step]) & 0xc0) == 0x80)
          ++step;
      } else {
        step = std::max<size_t>(1, valid_char_length(rest));
      }
      length += step;
    }
    out.push_back(from_right ? text.substr(text.size() - length) : text.substr(0, length));
    text = from_right ? text.substr(0, text.size() - length) : text.substr(length);
    text = strip(text, nullptr, !from_right, from_right);
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator,
                                    int64_t limit, bool from_right) {
  std::vector<std::string_view> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t hit = from_right ? text.rfind(separator) : text.find(separator);
    if (hit == std::string_view::npos) break;
    out.push_back(from_right ? text.substr(hit + separator.size()) : text.substr(0, hit));
    text = from_right ? text.substr(0, hit) : text.substr(hit + separator.size());
  }
  out.push_back(text);
  return out;
}

Value split_method(std::string_view text, const Arguments& arguments, bool from_right,
                   Budget& budget) {
  arguments.allow(2, {"sep", "maxsplit"});
  budget.bytes(text.size());
  const Value* separator = arguments.find(0, "sep");
  const int64_t limit = arguments.integer(1, "maxsplit", -1);
  std::vector<std::string_view> parts;
  if (separator == nullptr || separator->is_none()) {
    parts = words(text, limit, from_right);
  } else {
    const std::string by = arguments.text(0, "sep", "");
    if (by.empty()) arguments.bad("has an empty separator");
    parts = split(text, by, limit, from_right);
    if (from_right) std::reverse(parts.begin(), parts.end());
    return list_of_texts(parts, budget);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return list_of_texts(parts, budget);
}

Value splitlines(std::string_view text, const Arguments& arguments, Budget& budget) {
  arguments.allow(1, {"keepends"});
  const bool keep = arguments.flag(0, "keepends", false);
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\r\n\v\f"), text.size());
    size_t length = end;
    if (end < text.size()) length += text.substr(end, 2) == "\r\n" ? 2 : 1;
    lines.push_back(text.substr(0, keep ? length : end));
    text.remove_prefix(length);
  }
  return list_of_texts(lines, budget);
}

// startswith and endswith take one text or a list of them.
bool has_affix(const std::string& text, const Arguments& arguments, bool at_start) {
  arguments.allow(1, {});
  const Value* affix = arguments.find(0, "");
  const auto fits = [&](const Value& value) {
    if (value.text() == nullptr)
      arguments.bad(fmt::format("takes strings, not {}", type_name(value)));
    return at_start ? text.starts_with(*value.text()) : text.ends_with(*value.text());
  };
  if (affix == nullptr) arguments.bad("needs an argument");
  if (const List* list = affix->list())
    return std::any_of(list->items.begin(), list->items.end(), fits);
  return fits(*affix);
}

std::string join(std::string_view between, const std::vector<Value>& items,
                 const Arguments& arguments, Budget& budget) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].text() == nullptr)
      arguments.bad(fmt::format("joins strings, not {}", type_name(items[i])));
    budget.append(out.size(), between.size() + items[i].text()->size());
    if (i > 0) out.append(between);
    out.append(*items[i].text());
  }
  return out;
}

// Positions count characters.
Value find(const std::string& text, const Arguments& arguments, bool from_right) {
  arguments.allow(1, {});
  const std::string what = arguments.text(0, "sub", "");
  const size_t at = from_right ? text.rfind(what) : text.find(what);
  if (at == std::string::npos) return {int64_t{-1}};
  return {static_cast<int64_t>(characters(std::string_view(text).substr(0, at)).size())};
}

int64_t count(std::string_view text, std::string_view what) {
  if (what.empty()) return static_cast<int64_t>(characters(text).size()) + 1;
  int64_t hits = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size())
    ++hits;
  return hits;
}

bool all_digits(const std::string& text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::optional<Value> text_method(const std::string& text, std::string_view name,
                                 const Arguments& arguments, Budget& budget) {
  budget.bytes(text.size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    arguments.allow(1, {"chars"});
    const std::string chars = arguments.text(0, "chars", "");
    const Value* given = arguments.find(0, "chars");
    const bool spaces = given == nullptr || given->is_none();
    return Value{
        std::string(strip(text, spaces ? nullptr : &chars, name != "rstrip", name != "lstrip"))};
  }
  if (name == "split" || name == "rsplit")
    return split_method(text, arguments, name == "rsplit", budget);
  if (name == "splitlines") return splitlines(text, arguments, budget);
  if (name == "startswith" || name == "endswith")
    return Value{has_affix(text, arguments, name == "startswith")};
  if (name == "replace") {
    arguments.allow(3, {"count"});
    if (arguments.positional.size() < 2) arguments.bad("needs two arguments");
    return Value{replace(text, arguments.text(0, "old", ""), arguments.text(1, "new", ""),
                         arguments.integer(2, "count", -1), budget)};
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const bool affix = has_affix(text, arguments, name == "removeprefix");
    const size_t size = affix ? arguments.text(0, "", "").size() : 0;
    return Value{name == "removeprefix" ? text.substr(size) : text.substr(0, text.size() - size)};
  }
  if (name == "find" || name == "rfind") return find(text, arguments, name == "rfind");
  if (name == "count") return Value{count(text, arguments.text(0, "sub", ""))};
  if (name == "join") {
    arguments.allow(1, {});
    if (arguments.positional.empty()) arguments.bad("needs an argument");
    return Value{
        join(text, items_of(arguments.positional[0], arguments.line, budget), arguments, budget)};
  }
  arguments.allow(0, {});
  if (name == "upper") return Value{upper(text)};
  if (name == "lower") return Value{lower(text)};
  if (name == "capitalize") return Value{capitalize(text)};
  if (name == "title") return Value{title(text)};
  if (name == "isdigit") return Value{all_digits(text)};
  return std::nullopt;
}

std::optional<Value> dict_method(const Value& self, std::string_view name,
                                 const Arguments& arguments, Budget& budget) {
  const Dict& dict = *self.dict();
  if (name == "get") {
    arguments.allow(2, {"default"});
    if (arguments.positional.empty()) arguments.bad("needs an argument");
    const std::string* key = arguments.positional[0].text();
    const Value* found = key == nullptr ? nullptr : dict.find(*key);
    if (found != nullptr) return *found;
    const Value* otherwise = arguments.find(1, "default");
    return otherwise == nullptr ? Value{nullptr} : *otherwise;
  }
  budget.items(dict.items.size());
  arguments.allow(0, {});
  if (name == "copy") return self;
  if (name != "items" && name != "keys" && name != "values") return std::nullopt;
  std::vector<Value> out;
  for (const auto& [key, value] : dict.items) {
    if (name == "items") out.push_back(make_list({Value{key}, value}, true));
    if (name == "keys") out.push_back({key});
    if (name == "values") out.push_back(value);
  }
  return make_list(std::move(out));
}

std::optional<Value> list_method(const List& list, std::string_view name,
                                 const Arguments& arguments, Budget& budget) {
  if (name != "count" && name != "index") return std::nullopt;
  arguments.allow(1, {});
  if (arguments.positional.empty()) arguments.bad("needs an argument");
  budget.items(list.items.size());
  const auto same = [&](const Value& value) { return equal(value, arguments.positional[0]); };
  if (name == "count")
    return Value{static_cast<int64_t>(std::count_if(list.items.begin(), list.items.end(), same))};
  const auto found = std::find_if(list.items.begin(), list.items.end(), same);
  if (found == list.items.end()) arguments.bad("finds nothing");
  return Value{static_cast<int64_t>(found - list.items.begin())};
}

std::optional<Value> loop_method(Loop& loop, std::string_view name, const Arguments& arguments) {
  if (name == "cycle" && !arguments.positional.empty())
    return arguments.positional[loop.at % arguments.positional.size()];
  if (name != "changed") return std::nullopt;
  const bool same = loop.last_changed.size() == arguments.positional.size() && loop.at > 0 &&
                    std::equal(loop.last_changed.begin(), loop.last_changed.end(),
                               arguments.positional.begin(), equal);
  loop.last_changed = arguments.positional;
  return Value{!same};
}

Value range(const Arguments& arguments, Budget& budget) {
  arguments.allow(3, {});
  if (arguments.positional.empty()) arguments.bad("needs an argument");
  const bool one = arguments.positional.size() == 1;
  const int64_t start = one ? 0 : arguments.integer(0, "start", 0);
  const int64_t stop = arguments.integer(one ? 0 : 1, "stop", 0);
  const int64_t step = arguments.integer(2, "step", 1);
  if (step == 0) arguments.bad("has a step of 0");
  const long double span = (static_cast<long double>(stop) - static_cast<long double>(start)) /
                           static_cast<long double>(step);
  if (span > static_cast<long double>(kMaxRange))
    arguments.bad(fmt::format("has more than {} numbers", kMaxRange));
  std::vector<Value> out;
  const auto count = span <= 0 ? int64_t{0} : static_cast<int64_t>(span) + 1;
  budget.items(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t value = start + i * step;
    if (step > 0 ? value >= stop : value <= stop) break;
    out.push_back({value});
  }
  return make_list(std::move(out));
}

Dict named_fields(const Arguments& arguments) {
  Dict fields;
  for (const Value& value : arguments.positional) {
    if (value.dict() == nullptr)
      arguments.bad(fmt::format("takes a dict, not {}", type_name(value)));
    for (const auto& [key, item] : value.dict()->items) fields.set(key, item);
  }
  for (const auto& [key, value] : arguments.named) fields.set(key, value);
  return fields;
}

std::string date(const Arguments& arguments, const std::tm& now) {
  arguments.allow(1, {"format"});
  const std::string format = arguments.text(0, "format", "");
  if (format.empty()) return {};
  std::array<char, 512> buffer{};
  if (format.size() > 128 || std::strftime(buffer.data(), buffer.size(), format.c_str(), &now) == 0)
    arguments.bad("has a format that is too long");
  return buffer.data();
}

constexpr std::array<std::string_view, 5> kFunctions = {"range", "namespace", "dict",
                                                        "raise_exception", "strftime_now"};

}  // namespace

bool is_function(std::string_view name) {
  return std::find(kFunctions.begin(), kFunctions.end(), name) != kFunctions.end();
}

Value call_method(const Value& self, std::string_view name, const Arguments& arguments,
                  Budget& budget) {
  std::optional<Value> out;
  if (const std::string* text = self.text()) out = text_method(*text, name, arguments, budget);
  if (self.dict() != nullptr) out = dict_method(self, name, arguments, budget);
  if (const List* list = self.list()) out = list_method(*list, name, arguments, budget);
  if (const auto* loop = self.get<std::shared_ptr<Loop>>())
    out = loop_method(**loop, name, arguments);
  if (out) return std::move(*out);
  template_unsupported(arguments.line,
                       fmt::format("the method {} of a {}", printable(name, 40), type_name(self)));
}

Value call_function(std::string_view name, const Arguments& arguments, const std::tm& now,
                    Budget& budget) {
  if (name == "range") return range(arguments, budget);
  if (name == "dict") return make_dict(named_fields(arguments));
  if (name == "namespace") return {std::make_shared<Namespace>(Namespace{named_fields(arguments)})};
  if (name == "strftime_now") return {date(arguments, now)};
  throw Failure(ErrorCode::kUsage, fmt::format("the chat template refuses these messages: {}",
                                               printable(arguments.text(0, "message", ""), 300)));
}

}  // namespace spear::jinja
