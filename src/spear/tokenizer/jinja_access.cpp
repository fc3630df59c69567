// Attributes, items, slices and iteration over template values; the budget and the reading of
// arguments.
#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "spear/base/error.h"
#include "spear/base/printable.h"
#include "spear/tokenizer/jinja_builtins.h"
#include "spear/tokenizer/jinja_lexer.h"

namespace spear::jinja {
namespace {

constexpr size_t kMaxText = size_t{16} << 20;

constexpr std::array<std::string_view, 5> kDictMethods = {"items", "keys", "values", "get", "copy"};

Value undefined(std::string_view name) {
  return {Undefined{std::string(name)}};
}

[[noreturn]] void undefined_error(const Value& value, int line) {
  template_error(line, fmt::format("{} is undefined", printable(value.get<Undefined>()->name, 60)));
}

Value loop_attribute(const Loop& loop, std::string_view name) {
  const auto count = static_cast<int64_t>(loop.items->size());
  const auto at = static_cast<int64_t>(loop.at);
  if (name == "index") return {at + 1};
  if (name == "index0") return {at};
  if (name == "revindex") return {count - at};
  if (name == "revindex0") return {count - at - 1};
  if (name == "first") return {at == 0};
  if (name == "last") return {at + 1 == count};
  if (name == "length") return {count};
  if (name == "depth") return {int64_t{1}};  // deeper only in recursive loops, which are refused
  if (name == "depth0") return {int64_t{0}};
  if (name == "previtem") return at == 0 ? undefined("loop.previtem") : (*loop.items)[loop.at - 1];
  if (name == "nextitem")
    return at + 1 == count ? undefined("loop.nextitem") : (*loop.items)[loop.at + 1];
  return undefined(name);
}

// Where a Python slice of `count` things begins, ends and how it steps.
struct SliceRange {
  int64_t start;
  int64_t stop;
  int64_t step;
};

std::optional<int64_t> bound(const Value* value, int line) {
  if (value == nullptr || value->is_none()) return std::nullopt;
  if (const auto* integer = value->get<int64_t>()) return *integer;
  template_error(line, fmt::format("a slice with a {} instead of an integer", type_name(*value)));
}

SliceRange slice_range(int64_t count, const Value* start, const Value* stop, const Value* step,
                       int line) {
  SliceRange range{0, 0, bound(step, line).value_or(1)};
  if (range.step == 0) template_error(line, "a slice with a step of 0");
  const bool forward = range.step > 0;
  const int64_t low = forward ? 0 : -1;
  const int64_t high = forward ? count : count - 1;
  const auto place = [&](std::optional<int64_t> value, int64_t otherwise) {
    if (!value) return otherwise;
    return std::clamp(*value < 0 ? std::max(*value, -count - 1) + count : *value, low, high);
  };
  range.start = place(bound(start, line), forward ? low : high);
  range.stop = place(bound(stop, line), forward ? high : low);
  range.step = std::clamp(range.step, -count - 1, count + 1);  // larger steps do the same
  return range;
}

template <class Visit>
void for_slice(const SliceRange& range, Visit&& visit) {
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step)
    visit(static_cast<size_t>(i));
}

}  // namespace

void Budget::pay(size_t steps) {
  if (steps > left_)
    throw Failure(ErrorCode::kUnsupported,
                  "chat template: stopped, it takes more steps than any conversation needs");
  left_ -= steps;
}

void Budget::require_text(size_t size) {
  if (size > kMaxText)
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format("chat template: stopped, it makes a text of more than {} MiB", kMaxText >> 20));
}

size_t Budget::text_limit() {
  return kMaxText;
}

const Value* Arguments::find(size_t place, std::string_view name) const {
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return place < positional.size() ? &positional[place] : nullptr;
}

std::string Arguments::text(size_t place, std::string_view name, std::string_view otherwise) const {
  const Value* value = find(place, name);
  if (value == nullptr || value->is_none()) return std::string(otherwise);
  if (value->text() == nullptr)
    bad(fmt::format("takes a string as {}, not {}", name, type_name(*value)));
  return *value->text();
}

int64_t Arguments::integer(size_t place, std::string_view name, int64_t otherwise) const {
  const Value* value = find(place, name);
  if (value == nullptr || value->is_none()) return otherwise;
  if (const auto* integer = value->get<int64_t>()) return *integer;
  bad(fmt::format("takes an integer as {}, not {}", name, type_name(*value)));
}

bool Arguments::flag(size_t place, std::string_view name, bool otherwise) const {
  const Value* value = find(place, name);
  return value == nullptr ? otherwise : is_true(*value);
}

void Arguments::allow(size_t places, std::initializer_list<std::string_view> names) const {
  if (positional.size() > places)
    bad(fmt::format("takes at most {} arguments, not {}", places, positional.size()));
  for (const auto& [key, value] : named)
    if (std::find(names.begin(), names.end(), key) == names.end())
      template_unsupported(line, fmt::format("the argument {} of {}", printable(key, 40), callee));
}

void Arguments::bad(const std::string& what) const {
  template_error(line, fmt::format("{} {}", callee, what));
}

Value attribute_of(const Value& value, std::string_view name, int line) {
  if (value.is_undefined()) undefined_error(value, line);
  if (name.starts_with('_'))
    template_unsupported(line, fmt::format("the attribute {}", printable(name, 40)));
  if (const Dict* dict = value.dict()) {
    if (std::find(kDictMethods.begin(), kDictMethods.end(), name) != kDictMethods.end())
      return {Method{std::make_shared<const Value>(value), std::string(name)}};
    const Value* found = dict->find(name);
    return found == nullptr ? undefined(name) : *found;
  }
  if (const auto* fields = value.get<std::shared_ptr<Namespace>>()) {
    const Value* found = (*fields)->fields.find(name);
    return found == nullptr ? undefined(name) : *found;
  }
  if (const auto* loop = value.get<std::shared_ptr<Loop>>()) return loop_attribute(**loop, name);
  return undefined(name);
}

Value item_of(const Value& value, const Value& key, int line, Budget& budget) {
  if (value.is_undefined()) undefined_error(value, line);
  const auto* integer = key.get<int64_t>();
  if (const List* list = value.list(); list != nullptr && integer != nullptr) {
    const auto count = static_cast<int64_t>(list->items.size());
    const int64_t at = *integer < 0 ? *integer + count : *integer;
    return at < 0 || at >= count ? undefined(std::to_string(*integer)) : list->items[at];
  }
  if (const std::string* text = value.text(); text != nullptr && integer != nullptr) {
    budget.bytes(text->size());
    const std::vector<std::string_view> list = characters(*text);
    const auto count = static_cast<int64_t>(list.size());
    const int64_t at = *integer < 0 ? *integer + count : *integer;
    return at < 0 || at >= count ? undefined(std::to_string(*integer))
                                 : Value{std::string(list[at])};
  }
  if (const std::string* name = key.text()) {
    if (const Dict* dict = value.dict()) {
      const Value* found = dict->find(*name);
      if (found != nullptr) return *found;
    }
    return attribute_of(value, *name, line);
  }
  return undefined(type_name(key));
}

Value slice_of(const Value& value, const Value* start, const Value* stop, const Value* step,
               int line, Budget& budget) {
  if (const List* list = value.list()) {
    budget.items(list->items.size());
    std::vector<Value> out;
    for_slice(slice_range(static_cast<int64_t>(list->items.size()), start, stop, step, line),
              [&](size_t i) { out.push_back(list->items[i]); });
    return make_list(std::move(out), list->tuple);
  }
  if (const std::string* text = value.text()) {
    budget.bytes(text->size());
    const std::vector<std::string_view> list = characters(*text);
    std::string out;
    for_slice(slice_range(static_cast<int64_t>(list.size()), start, stop, step, line),
              [&](size_t i) { out.append(list[i]); });
    return {std::move(out)};
  }
  if (value.is_undefined()) undefined_error(value, line);
  template_error(line, fmt::format("a slice of a {}", type_name(value)));
}

std::vector<Value> items_of(const Value& value, int line, Budget& budget) {
  if (value.is_undefined()) return {};
  if (const List* list = value.list()) {
    budget.items(list->items.size());
    return list->items;
  }
  std::vector<Value> out;
  if (const Dict* dict = value.dict()) {
    budget.items(dict->items.size());
    for (const auto& [key, item] : dict->items) out.push_back({key});
  } else if (const std::string* text = value.text()) {
    budget.items(text->size());
    for (const std::string_view character : characters(*text))
      out.push_back({std::string(character)});
  } else {
    template_error(line, fmt::format("a {} where a list belongs", type_name(value)));
  }
  return out;
}

bool contains(const Value& container, const Value& item, int line) {
  if (container.is_undefined()) return false;
  if (const List* list = container.list())
    return std::any_of(list->items.begin(), list->items.end(),
                       [&item](const Value& value) { return equal(value, item); });
  if (const Dict* dict = container.dict())
    return item.text() != nullptr && dict->find(*item.text()) != nullptr;
  if (container.text() != nullptr && item.text() != nullptr)
    return container.text()->find(*item.text()) != std::string::npos;
  template_error(line,
                 fmt::format("'in' between a {} and a {}", type_name(item), type_name(container)));
}

}  // namespace spear::jinja
