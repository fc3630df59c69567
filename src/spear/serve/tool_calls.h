// Tool calls in the text of an answer. Models write them between <tool_call> tags, or the whole
// answer is one JSON object {"name": …, "arguments": …}; what looks like a call but is none stays
// text. One owner, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/json_fwd.h"

namespace spear {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text of an object
};

class ToolCallParser {
 public:
  // Calls of other names are text.
  explicit ToolCallParser(std::vector<std::string> names) : names_(std::move(names)) {}

  // Text of the answer that came in; returns what of it is content for certain.
  std::string push(std::string_view text);
  // The rest, when no more text comes.
  std::string finish();
  // Every call so far, in order.
  [[nodiscard]] const std::vector<ToolCall>& calls() const { return calls_; }

 private:
  std::string advance();
  bool take_call(std::string_view json);

  std::vector<std::string> names_;
  std::vector<ToolCall> calls_;
  std::string held_;
  bool inside_ = false;      // a tag was opened
  bool at_start_ = true;     // nothing but white space so far
  bool whole_json_ = false;  // the answer began with '{': judged when it ends
  bool has_content_ = false;
};

}  // namespace spear
