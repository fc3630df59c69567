// A conversation with a model: messages in, an answer out piece by piece. The model's template
// makes the prompt; a model without one continues the text as it stands. Answers come from an
// engine of the session's own, whose cache keeps what earlier turns computed. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/cli/open_model.h"
#include "spear/engine/constraint.h"
#include "spear/engine/engine.h"
#include "spear/engine/model_runner.h"
#include "spear/engine/token_stream.h"
#include "spear/tokenizer/chat_template.h"

namespace spear {

struct ChatOptions {
  SamplingParams sampling = {.temperature = 0.7, .top_p = 0.95};
  std::vector<std::string> stop;
  int64_t max_tokens = 1024;  // of an answer
  int64_t context = 4096;     // at most; the model's own limit holds too
  int64_t max_draft = 0;      // tokens guessed by prompt look-up
  DType kv_type = DType::kF32;
  bool deterministic = false;
  std::string regex, json_schema;  // what an answer must match; empty: anything
  std::string system;              // empty: what the template says by itself
};

enum class ChatStop { kEndToken, kStopString, kMaxTokens, kContextFull, kInterrupted };

struct ChatAnswer {
  std::string text;
  int64_t prompt_tokens = 0;    // of the whole conversation
  int64_t computed_tokens = 0;  // of these, what was not in the cache
  int64_t tokens = 0;           // of the answer, without the one that ended it
  double prompt_seconds = 0, seconds = 0;
  ChatStop stop = ChatStop::kEndToken;
  int64_t forgotten = 0;  // old messages that no longer fit into the context

  [[nodiscard]] double tokens_per_second() const {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  }
};

class ChatSession {
 public:
  // `model` and `decoder` must outlive this; the pool is the backend's. Throws Failure for options
  // that make no sense and for a template that cannot be read.
  ChatSession(const OpenedModel& model, Decoder& decoder, ThreadPool& pool,
              const ChatOptions& options);

  [[nodiscard]] bool has_template() const { return template_.has_value(); }
  void reset() { messages_.clear(); }
  void set_system(std::string text) { system_ = std::move(text); }

  // Throws Failure(kUsage) when the message alone does not fit into the context.
  ChatAnswer answer(std::string message, const std::function<void(std::string_view)>& on_text,
                    const std::function<bool()>& keep_going);

  [[nodiscard]] EngineStats stats() const { return engine_->stats(); }
  [[nodiscard]] size_t cache_bytes() const { return runner_.cache_bytes(); }
  [[nodiscard]] int64_t context() const { return context_; }

 private:
  [[nodiscard]] std::vector<int32_t> prompt_ids() const;
  std::vector<int32_t> fitting_prompt(int64_t& forgotten);
  [[nodiscard]] Request request_for(std::vector<int32_t> ids);
  void generate(Request request, ChatAnswer& answer,
                const std::function<void(std::string_view)>& on_text,
                const std::function<bool()>& keep_going);
  void conclude(const Finish& finish, const Request& request, ChatAnswer& answer) const;

  const OpenedModel& model_;
  ChatOptions options_;
  int64_t context_;
  std::optional<ChatTemplate> template_;
  DecoderModel runner_;
  std::unique_ptr<Engine> engine_;
  ConstraintPointer constraint_;
  std::string system_;
  std::vector<ChatMessage> messages_;  // without the system's
  uint64_t turns_ = 0;
};

}  // namespace spear
