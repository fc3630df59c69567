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

// A first pass over the text without building anything: is it JSON, does no object repeat a key or
// have too many? (The library's own callback looks at all siblings whenever an object ends: minutes
// for a large table.)
class KeyCheck final : public SortedJson::json_sax_t {
 public:
  explicit KeyCheck(size_t most) : most_(most) {}
  [[nodiscard]] const std::string& problem() const { return problem_; }

  bool start_object(size_t) override {
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool key(std::string& name) override {
    if (!keys_.back().insert(name).second)
      problem_ = fmt::format("key {} stands twice in one object", printable(name));
    else if (keys_.back().size() > most_)
      problem_ = fmt::format("an object of more than {} keys", most_);
    return problem_.empty();
  }
  bool parse_error(size_t byte, const std::string&, const SortedJson::exception& error) override {
    // A number out of range has no byte of its own.
    problem_ = byte != 0 ? fmt::format("not valid JSON at byte {}", byte)
                         : fmt::format("not usable JSON: {}", error.what());
    return false;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(SortedJson::binary_t&) override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }

 private:
  size_t most_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string problem_;
};

template <class AnyJson>
Result<AnyJson> parse_checked(std::string_view text, std::string_view source, int max_depth,
                              size_t max_keys) {
  if (nesting_depth(text, max_depth) > max_depth)
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: JSON nested deeper than {} levels", source, max_depth));
  KeyCheck check(max_keys);
  if (!SortedJson::sax_parse(text, &check))
    return fail(ErrorCode::kBadFile, fmt::format("{}: {}", source, check.problem()));
  try {
    return AnyJson::parse(text);
  } catch (const typename AnyJson::exception& error) {
    return fail(ErrorCode::kBadFile, fmt::format("{}: not usable JSON: {}", source, error.what()));
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view source, int max_depth) {
  return parse_checked<Json>(text, source, max_depth, kMaxOrderedKeys);
}

Result<SortedJson> parse_sorted_json(std::string_view text, std::string_view source,
                                     int max_depth) {
  return parse_checked<SortedJson>(text, source, max_depth, text.size());
}

std::string one_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace spear
