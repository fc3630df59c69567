#include "spear/tokenizer/jinja_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "spear/base/error.h"
#include "spear/base/json.h"
#include "spear/tokenizer/utf8.h"

namespace spear::jinja {
namespace {

constexpr int kMaxNesting = 100;

[[noreturn]] void fail_with(const std::string& what) {
  throw Failure(ErrorCode::kUsage, "chat template: " + what);
}

Value convert(const Json& json, int depth) {
  if (depth > kMaxNesting)
    fail_with(fmt::format("a value nested deeper than {} levels", kMaxNesting));
  switch (json.type()) {
    case Json::value_t::boolean:
      return {json.get<bool>()};
    case Json::value_t::number_integer:
      return {json.get<int64_t>()};
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) return {json.get<double>()};
      return {json.get<int64_t>()};
    case Json::value_t::number_float:
      return {json.get<double>()};
    case Json::value_t::string:
      return {json.get<std::string>()};
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(convert(item, depth + 1));
      return make_list(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.set(key, convert(item, depth + 1));
      return make_dict(std::move(dict));
    }
    default:
      return {nullptr};
  }
}

// Python's repr of a float: the shortest digits that read back, always with a point or an exponent.
std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer{};
  const double size = std::fabs(number);
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

// Writes values as text, Python or JSON, refusing to grow over a limit.
class Printer {
 public:
  Printer(bool json, int indent, bool ascii, bool sort_keys, size_t limit)
      : json_(json), indent_(indent), ascii_(ascii), sort_keys_(sort_keys), limit_(limit) {}

  void print(const Value& value, int depth) {
    if (depth > kMaxNesting)
      fail_with(fmt::format("a value nested deeper than {} levels", kMaxNesting));
    if (const auto* flag = value.get<bool>()) {
      put(*flag ? (json_ ? "true" : "True") : (json_ ? "false" : "False"));
    } else if (value.is_none()) {
      put(json_ ? "null" : "None");
    } else if (const auto* integer = value.get<int64_t>()) {
      put(std::to_string(*integer));
    } else if (const auto* real = value.get<double>()) {
      number(*real);
    } else if (const auto* text = value.text()) {
      json_ ? json_text(*text) : python_text(*text);
    } else if (const List* list = value.list()) {
      print_list(*list, depth);
    } else if (const Dict* dict = value.dict()) {
      print_dict(*dict, depth);
    } else {
      fail_with(fmt::format("a value of type {} cannot be written", type_name(value)));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void put(std::string_view text) {
    out_.append(text);
    if (out_.size() > limit_) fail_with(fmt::format("a text of more than {} bytes", limit_));
  }

  void number(double real) {
    if (!json_ || std::isfinite(real)) return put(float_text(real));
    put(std::isnan(real) ? "NaN" : real > 0 ? "Infinity" : "-Infinity");
  }

  void new_line(int depth) {
    if (!json_ || indent_ < 0) return;
    put("\n");
    put(std::string(static_cast<size_t>(indent_) * static_cast<size_t>(depth), ' '));
  }

  void separator(bool first, int depth) {
    if (!first) put(json_ && indent_ >= 0 ? "," : ", ");
    new_line(depth);
  }

  void print_list(const List& list, int depth) {
    const bool round = list.tuple && !json_;
    put(round ? "(" : "[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      separator(i == 0, depth + 1);
      print(list.items[i], depth + 1);
    }
    if (!list.items.empty()) new_line(depth);
    if (round && list.items.size() == 1) put(",");
    put(round ? ")" : "]");
  }

  void print_dict(const Dict& dict, int depth) {
    std::vector<const std::pair<std::string, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (sort_keys_)
      std::sort(items.begin(), items.end(),
                [](const auto* a, const auto* b) { return a->first < b->first; });
    put("{");
    for (size_t i = 0; i < items.size(); ++i) {
      separator(i == 0, depth + 1);
      json_ ? json_text(items[i]->first) : python_text(items[i]->first);
      put(": ");
      print(items[i]->second, depth + 1);
    }
    if (!items.empty()) new_line(depth);
    put("}");
  }

  void json_text(std::string_view text) {
    std::string out = "\"";
    while (!text.empty()) {
      const size_t length = std::max<size_t>(1, valid_char_length(text));
      const std::string_view character = text.substr(0, length);
      const uint32_t point = length == 1 ? static_cast<uint8_t>(text[0]) : code_point(text, length);
      if (const size_t named = std::string_view("\"\\\n\r\t\f\b").find(text[0]);
          length == 1 && named != std::string_view::npos) {
        out += '\\';
        out += "\"\\nrtfb"[named];
      } else if (point < 0x20 || (ascii_ && point > 0x7e)) {
        if (point >= 0x10000) {
          out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((point - 0x10000) >> 10),
                             0xdc00 + ((point - 0x10000) & 0x3ff));
        } else {
          out += fmt::format("\\u{:04x}", point);
        }
      } else {
        out += character;
      }
      text.remove_prefix(length);
    }
    put(out + "\"");
  }

  void python_text(std::string_view text) {
    const bool single =
        text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
    const char quote = single ? '\'' : '"';
    std::string out(1, quote);
    for (const char c : text) {
      if (c == quote || c == '\\') {
        out += '\\';
        out += c;
      } else if (c == '\n' || c == '\r' || c == '\t') {
        out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
      } else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
      } else {
        out += c;
      }
    }
    put(out + quote);
  }

  bool json_;
  int indent_;
  bool ascii_;
  bool sort_keys_;
  size_t limit_;
  std::string out_;
};

template <class Compare>
bool in_order(const std::vector<Value>& a, const std::vector<Value>& b, Compare&& shorter_first) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!equal(a[i], b[i])) return less(a[i], b[i]);
  return shorter_first(a.size(), b.size());
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  const auto found = index.find(std::string(key));
  return found == index.end() ? nullptr : &items[found->second].second;
}

void Dict::set(const std::string& key, Value value) {
  const auto [found, fresh] = index.emplace(key, items.size());
  if (fresh) {
    items.emplace_back(key, std::move(value));
  } else {
    items[found->second].second = std::move(value);
  }
}

const List* Value::list() const {
  const auto* pointer = get<ListPtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}

const Dict* Value::dict() const {
  const auto* pointer = get<DictPtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}

bool Value::is_number() const {
  return get<bool>() != nullptr || get<int64_t>() != nullptr || get<double>() != nullptr;
}

Value make_list(std::vector<Value> items, bool tuple) {
  return {std::make_shared<const List>(List{std::move(items), tuple})};
}

Value make_dict(Dict dict) {
  return {std::make_shared<const Dict>(std::move(dict))};
}

Value from_json(const nlohmann::ordered_json& json) {
  return convert(json, 0);
}

double as_double(const Value& number) {
  if (const auto* flag = number.get<bool>()) return *flag ? 1 : 0;
  if (const auto* integer = number.get<int64_t>()) return static_cast<double>(*integer);
  return *number.get<double>();
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number()) return as_double(value) != 0;
  if (const auto* text = value.text()) return !text->empty();
  if (const auto* markup = value.get<Markup>()) return !markup->text.empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const auto* x = a.get<int64_t>();
    const auto* y = b.get<int64_t>();
    return x != nullptr && y != nullptr ? *x == *y : as_double(a) == as_double(b);
  }
  if (a.data.index() != b.data.index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (const auto* text = a.text()) return *text == *b.text();
  if (const List* x = a.list()) {
    const List* y = b.list();
    return x->items.size() == y->items.size() &&
           std::equal(x->items.begin(), x->items.end(), y->items.begin(), equal);
  }
  if (const Dict* x = a.dict()) {
    const Dict* y = b.dict();
    return x->items.size() == y->items.size() &&
           std::all_of(x->items.begin(), x->items.end(), [y](const auto& item) {
             const Value* other = y->find(item.first);
             return other != nullptr && equal(item.second, *other);
           });
  }
  if (const auto* x = a.get<std::shared_ptr<Namespace>>())
    return *x == *b.get<std::shared_ptr<Namespace>>();
  return false;
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const auto* x = a.get<int64_t>();
    const auto* y = b.get<int64_t>();
    return x != nullptr && y != nullptr ? *x < *y : as_double(a) < as_double(b);
  }
  if (a.text() != nullptr && b.text() != nullptr)
    return *a.text() < *b.text();  // UTF-8 keeps order
  if (a.list() != nullptr && b.list() != nullptr)
    return in_order(a.list()->items, b.list()->items, std::less<>());
  fail_with(fmt::format("{} and {} cannot be ordered", type_name(a), type_name(b)));
}

std::string type_name(const Value& value) {
  static constexpr std::array<const char*, 14> kNames = {
      "undefined", "none",      "bool",  "integer", "float",  "string",   "list",
      "dict",      "namespace", "macro", "loop",    "method", "function", "safe text"};
  return kNames[value.data.index()];
}

std::string to_text(const Value& value, size_t limit) {
  if (value.is_undefined()) return {};
  if (const auto* text = value.text()) return *text;
  if (const auto* markup = value.get<Markup>()) return markup->text;
  return to_repr(value, limit);
}

std::string to_repr(const Value& value, size_t limit) {
  Printer printer(false, -1, false, false, limit);
  printer.print(value, 0);
  return printer.take();
}

std::string to_json(const Value& value, int indent, bool ascii, bool sort_keys, size_t limit) {
  Printer printer(true, indent, ascii, sort_keys, limit);
  printer.print(value, 0);
  return printer.take();
}

}  // namespace spear::jinja
