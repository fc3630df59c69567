// A model's chat template: the Jinja2 text that turns a conversation into a prompt. Parsed once,
// run by our own interpreter of the part of Jinja2 that models use; the rest is refused by name.
// Templates are hostile: steps, depth and output are bounded. Immutable: safe from every thread.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/json_fwd.h"

namespace spear {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTemplate {
 public:
  static Result<ChatTemplate> parse(std::string_view text);

  // `variables` is an object: "messages" (a list of objects with "role" and "content"), and
  // whatever else the template reads: "tools", "add_generation_prompt", "bos_token", "eos_token",
  // "enable_thinking" … Absent tools and documents are none, as transformers has it. `now` is what
  // strftime_now() tells.
  [[nodiscard]] Result<std::string> render(const Json& variables, const std::tm& now) const;

  // The common case: a conversation of texts whose answer is asked for, today.
  [[nodiscard]] Result<std::string> render(const std::vector<ChatMessage>& messages,
                                           std::string_view bos_token,
                                           std::string_view eos_token) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed);
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace spear
