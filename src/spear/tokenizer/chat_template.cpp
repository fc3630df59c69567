#include "spear/tokenizer/chat_template.h"

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/tokenizer/jinja_interpreter.h"

namespace spear {
namespace {

constexpr size_t kMaxTemplate = size_t{1} << 20;

}  // namespace

struct ChatTemplate::Parsed {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}

Result<ChatTemplate> ChatTemplate::parse(std::string_view text) {
  if (text.size() > kMaxTemplate)
    return fail(ErrorCode::kBadFile, fmt::format("chat template: {} bytes; at most {} are allowed",
                                                 text.size(), kMaxTemplate));
  try {
    auto parsed = std::make_shared<Parsed>();
    parsed->body = jinja::parse_template(text);
    return ChatTemplate(std::move(parsed));
  } catch (const Failure& failure) {
    return tl::unexpected(failure.error());
  }
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables,
                                         const std::tm& now) const {
  try {
    jinja::Dict dict;
    for (const char* absent : {"tools", "documents"}) dict.set(absent, {nullptr});
    dict.set("add_generation_prompt", {false});
    const jinja::Value given = jinja::from_json(variables);
    if (given.dict() == nullptr)
      return fail(ErrorCode::kUsage, "chat template: the variables are no object");
    for (const auto& [name, value] : given.dict()->items) dict.set(name, value);
    return jinja::render(parsed_->body, dict, now);
  } catch (const Failure& failure) {
    return tl::unexpected(failure.error());
  }
}

Result<std::string> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                         std::string_view bos_token,
                                         std::string_view eos_token) const {
  Json variables = {{"messages", Json::array()},
                    {"add_generation_prompt", true},
                    {"bos_token", bos_token},
                    {"eos_token", eos_token}};
  for (const ChatMessage& message : messages)
    variables["messages"].push_back({{"role", message.role}, {"content", message.content}});
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  return render(variables, now);
}

}  // namespace spear
