#include "spear/serve/tool_calls.h"

#include <algorithm>

#include "spear/base/json.h"

namespace spear {
namespace {

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr std::string_view kSpace = " \t\r\n";

// How many bytes at the end of `text` may be the beginning of `tag`.
size_t possible_tag(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n)
    if (text.ends_with(tag.substr(0, n))) return n;
  return 0;
}

bool blank(std::string_view text) {
  return text.find_first_not_of(kSpace) == std::string_view::npos;
}

}  // namespace

bool ToolCallParser::take_call(std::string_view json) {
  const Result<Json> call = parse_json(json, "tool call");
  if (!call || !call->is_object()) return false;
  const auto name = call->find("name");
  auto arguments = call->find("arguments");
  if (arguments == call->end()) arguments = call->find("parameters");
  if (name == call->end() || !name->is_string() || arguments == call->end() ||
      !arguments->is_object())
    return false;
  const auto text = name->get<std::string>();
  if (std::find(names_.begin(), names_.end(), text) == names_.end()) return false;
  calls_.push_back({text, one_line(*arguments)});
  return true;
}

std::string ToolCallParser::push(std::string_view text) {
  held_ += text;
  if (at_start_ && !blank(held_)) {
    at_start_ = false;
    whole_json_ = held_[held_.find_first_not_of(kSpace)] == '{';
  }
  return at_start_ || whole_json_ ? std::string() : advance();
}

std::string ToolCallParser::advance() {
  std::string content;
  for (;;) {
    if (!inside_) {
      const size_t open = held_.find(kOpen);
      const size_t end =
          open != std::string::npos ? open : held_.size() - possible_tag(held_, kOpen);
      const std::string_view before = std::string_view(held_).substr(0, end);
      // White space before the first call and after one is only there to part them; whether a call
      // follows may not be known yet.
      const bool parts = blank(before) && (!has_content_ || !calls_.empty());
      if (open == std::string::npos && parts) return content;
      if (!parts) content += before;
      has_content_ = has_content_ || !parts;
      held_.erase(0, end);
      if (open == std::string::npos) return content;
      inside_ = true;
    }
    const size_t close = held_.find(kClose);
    if (close == std::string::npos) return content;
    const std::string whole = held_.substr(0, close + kClose.size());
    if (!take_call(std::string_view(whole).substr(kOpen.size(), close - kOpen.size())))
      content += whole;
    has_content_ = has_content_ || !content.empty();
    held_.erase(0, whole.size());
    inside_ = false;
  }
}

std::string ToolCallParser::finish() {
  std::string content;
  if (inside_) {
    if (!take_call(std::string_view(held_).substr(kOpen.size()))) content = held_;
  } else if (!(whole_json_ && take_call(held_))) {
    whole_json_ = false;
    content = advance();
    if (inside_) return content + finish();
    if (calls_.empty() || !blank(held_)) content += held_;
  }
  held_.clear();
  inside_ = false;
  return content;
}

}  // namespace spear
