#include "spear/serve/tool_calls.h"

#include <gtest/gtest.h>

namespace spear {
namespace {

struct Parsed {
  std::string content;
  std::vector<ToolCall> calls;
};

// Fed `step` bytes at a time: the pieces must not matter.
Parsed parsed(const std::string& text, size_t step) {
  ToolCallParser parser({"add", "find"});
  Parsed result;
  for (size_t at = 0; at < text.size(); at += step)
    result.content += parser.push(std::string_view(text).substr(at, step));
  result.content += parser.finish();
  result.calls = parser.calls();
  return result;
}

struct Case {
  std::string text;
  std::string content;
  std::vector<std::string> calls;  // "name arguments"
};

TEST(ToolCalls, AreFoundWhateverThePieces) {
  const std::string add = R"({"name": "add", "arguments": {"a": [1, 2]}})";
  const std::vector<Case> cases = {
      {"no call at all", "no call at all", {}},
      {"", "", {}},
      {"  leading space stays", "  leading space stays", {}},
      {"a < b and <tool is open", "a < b and <tool is open", {}},
      {"<tool_call>\n" + add + "\n</tool_call>", "", {R"(add {"a":[1,2]})"}},
      {"Sure.\n<tool_call>" + add + "</tool_call>", "Sure.\n", {R"(add {"a":[1,2]})"}},
      {"<tool_call>" + add + "</tool_call>\n<tool_call>" + add + "</tool_call>",
       "",
       {R"(add {"a":[1,2]})", R"(add {"a":[1,2]})"}},
      {"<tool_call>" + add, "", {R"(add {"a":[1,2]})"}},
      {"<tool_call>{broken</tool_call> and on", "<tool_call>{broken</tool_call> and on", {}},
      {"<tool_call>" + add + "</tool_call> done.", " done.", {R"(add {"a":[1,2]})"}},
      {add, "", {R"(add {"a":[1,2]})"}},
      {R"({"name": "find", "parameters": {}})", "", {"find {}"}},
      {R"({"name": "other", "arguments": {}})", R"({"name": "other", "arguments": {}})", {}},
      {R"({"just": "json"})", R"({"just": "json"})", {}},
      {R"(<tool_call>{"name": "add", "arguments": 5}</tool_call>)",
       R"(<tool_call>{"name": "add", "arguments": 5}</tool_call>)",
       {}},
  };
  for (const Case& c : cases)
    for (const size_t step : {size_t{1}, size_t{3}, size_t{7}, size_t{1000}}) {
      const Parsed found = parsed(c.text, step);
      EXPECT_EQ(found.content, c.content) << c.text << " by " << step;
      std::vector<std::string> calls;
      for (const ToolCall& call : found.calls) calls.push_back(call.name + " " + call.arguments);
      EXPECT_EQ(calls, c.calls) << c.text << " by " << step;
    }
}

}  // namespace
}  // namespace spear
