#include "spear/base/json.h"

#include <unordered_set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "spear/base/printable.h"

namespace spear {
namespace {

// Depth is checked before parsing because building and destroying a deep value recurses.
int nesting_depth(std::string_view text, int limit) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > limit) return depth;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return 0;
}

template <class AnyJson>
Result<AnyJson> parse_bounded(std::string_view text, std::string_view source, int max_depth) {
  if (nesting_depth(text, max_depth) > max_depth)
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: JSON nested deeper than {} levels", source, max_depth));
  std::vector<std::unordered_set<std::string>> keys;
  std::string duplicate;
  const auto watch = [&](int, typename AnyJson::parse_event_t event, AnyJson& value) {
    if (event == AnyJson::parse_event_t::object_start) keys.emplace_back();
    if (event == AnyJson::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == AnyJson::parse_event_t::key && duplicate.empty() && !keys.empty()) {
      auto key = value.template get<std::string>();
      if (!keys.back().insert(key).second) duplicate = std::move(key);
    }
    return true;
  };
  try {
    AnyJson value = AnyJson::parse(text, watch);
    if (!duplicate.empty())
      return fail(ErrorCode::kBadFile, fmt::format("{}: key {} stands twice in one object", source,
                                                   printable(duplicate)));
    return value;
  } catch (const typename AnyJson::parse_error& error) {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: not valid JSON at byte {}", source, error.byte));
  } catch (const typename AnyJson::exception& error) {
    return fail(ErrorCode::kBadFile, fmt::format("{}: not usable JSON: {}", source, error.what()));
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view source, int max_depth) {
  return parse_bounded<Json>(text, source, max_depth);
}

Result<SortedJson> parse_sorted_json(std::string_view text, std::string_view source,
                                     int max_depth) {
  return parse_bounded<SortedJson>(text, source, max_depth);
}

}  // namespace spear
