// A model that says what its prompt tells it to: "say:hello|>" is answered with "hello" and the end
// token; a prompt without that is answered with x for ever. Byte-level, with a chat template of one
// line a message. What stands after "say:#" names one of the texts below.
#pragma once

#include <map>
#include <string>

#include "engine/byte_tokenizer.h"
#include "engine/scripted_model.h"

namespace spear::test {

inline const char* const kChatTemplate =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if tools %}tools\n{% endif %}{% if add_generation_prompt %}>{% endif %}";

inline const std::map<std::string, std::string>& canned_texts() {
  static const std::map<std::string, std::string> texts = {
      {"#tool", "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>"},
      {"#text-and-tools",
       "Well. <tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>\n"
       "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 2}}</tool_call>"},
      {"#unknown-tool", "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>"},
      {"#characters", "h\xc3\xa9 \xf0\x9f\x98\x80 \xe6\x97\xa5\xe6\x9c\xac!"},
  };
  return texts;
}

inline std::string told_text(const std::string& prompt) {
  const size_t say = prompt.find("say:");
  const size_t bar = say == std::string::npos ? say : prompt.find('|', say);
  if (bar == std::string::npos) return {};
  const std::string text = prompt.substr(say + 4, bar - say - 4);
  const auto canned = canned_texts().find(text);
  return canned == canned_texts().end() ? text : canned->second;
}

// The script of a ScriptedModel over byte_tokenizer(): 256 bytes and the end token.
inline void talk(std::span<const int32_t> prefix, std::span<float> logits) {
  std::string bytes;
  for (const int32_t id : prefix) bytes += id < 256 ? static_cast<char>(id) : '\0';
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.01F * static_cast<float>(i * 7 % 13);
  const size_t prompt_end = bytes.find('>');
  size_t next = 'x';
  if (prompt_end != std::string::npos) {
    const std::string text = told_text(bytes.substr(0, prompt_end));
    const size_t said = bytes.size() - prompt_end - 1;
    if (!text.empty())
      next = said < text.size() ? static_cast<unsigned char>(text[said]) : size_t{256};
  }
  logits[next] = 12;
}

}  // namespace spear::test
