// The replies of POST /v1/chat/completions. One owner, one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spear/serve/answer_writer.h"
#include "spear/serve/chat_request.h"
#include "spear/serve/tool_calls.h"

namespace spear {

class ChatWriter final : public AnswerWriter {
 public:
  ChatWriter(const ServedModel& model, const ChatRequest& request, std::string id);

  void add(size_t prompt, const StreamEvent& event, std::string& out) override;
  void finish(std::string& out) override;

 private:
  struct Choice {
    std::string content;
    std::vector<StreamEvent::Token> tokens;  // with log-probabilities, not sent yet
    std::optional<ToolCallParser> calls;
    size_t calls_sent = 0;
    std::optional<Finish> finish;
    bool begun = false;  // its role was sent
  };
  [[nodiscard]] std::string call_id(size_t choice, size_t call) const;
  [[nodiscard]] size_t call_count(const Choice& choice) const;
  [[nodiscard]] Json finish_json(const Choice& choice) const;
  Json logprobs_json(Choice& choice) const;
  void stream(size_t index, Choice& choice, const std::string& text, std::string& out);
  void send(size_t index, Choice& choice, Json delta, std::string& out, bool last);
  Json message_json(size_t index, Choice& choice) const;

  const Tokenizer& tokenizer_;
  std::string id_;
  ReplyFrame frame_;
  bool wants_logprobs_, parallel_calls_;
  std::vector<Choice> choices_;
};

}  // namespace spear
