// Any text as a chat template: refused with a sentence, or rendered within its bounds.
#include <cstdlib>
#include <string_view>

#include "spear/base/json.h"
#include "spear/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = spear::ChatTemplate::parse(text);
  if (!parsed) {
    if (parsed.error().message.empty()) std::abort();
    return 0;
  }
  const spear::Json variables = {
      {"messages",
       {{{"role", "user"}, {"content", "\u00fc x"}},
        {{"role", "assistant"}, {"content", nullptr}}}},
      {"tools", {{{"name", "f"}, {"parameters", {{"a", 1.5}, {"b", true}}}}}},
      {"bos_token", "<s>"},
      {"x", 3},
      {"s", "a b"}};
  const auto out = parsed->render(variables, std::tm{});
  if (!out && out.error().message.empty()) std::abort();
  return 0;
}
