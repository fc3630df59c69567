// A conversation with a model: messages in, an answer out piece by piece. The model's template
// makes the prompt; a model without one continues the text as it stands. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/cli/open_model.h"
#include "spear/cli/text_generator.h"
#include "spear/model/sampler.h"
#include "spear/tokenizer/chat_template.h"

namespace spear {

struct ChatOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 1024;  // of an answer
  int64_t context = 4096;     // at most; the model's own limit holds too
  std::string system;         // empty: what the template says by itself
};

enum class ChatStop { kEndToken, kMaxTokens, kContextFull, kInterrupted };

struct ChatAnswer {
  std::string text;
  int64_t prompt_tokens = 0;    // of the whole conversation
  int64_t computed_tokens = 0;  // of these, what was not in the cache
  int64_t tokens = 0;           // of the answer
  double prompt_seconds = 0, seconds = 0;
  ChatStop stop = ChatStop::kEndToken;
  int64_t forgotten = 0;  // old messages that no longer fit into the context

  [[nodiscard]] double tokens_per_second() const {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  }
};

class ChatSession {
 public:
  // `model` and `decoder` must outlive this. Throws Failure for options that make no sense and for
  // a template that cannot be read.
  ChatSession(const OpenedModel& model, Decoder& decoder, const ChatOptions& options);

  [[nodiscard]] bool has_template() const { return template_.has_value(); }
  void reset() { messages_.clear(); }
  void set_system(std::string text) { system_ = std::move(text); }

  // Throws Failure(kUsage) when the message alone does not fit into the context.
  ChatAnswer answer(std::string message, const std::function<void(std::string_view)>& on_text,
                    const std::function<bool()>& keep_going);

 private:
  [[nodiscard]] std::vector<int32_t> prompt_ids() const;
  std::vector<int32_t> fitting_prompt(int64_t& forgotten);
  [[nodiscard]] bool ends(int32_t id) const;
  void generate(std::vector<int32_t> ids, ChatAnswer& answer,
                const std::function<void(std::string_view)>& on_text,
                const std::function<bool()>& keep_going);

  const OpenedModel& model_;
  ChatOptions options_;
  std::optional<ChatTemplate> template_;
  TextGenerator generator_;
  Sampler sampler_;
  std::string system_;
  std::vector<ChatMessage> messages_;  // without the system's
};

}  // namespace spear
