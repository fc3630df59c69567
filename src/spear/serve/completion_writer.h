// The replies of POST /v1/completions. One owner, one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spear/serve/answer_writer.h"
#include "spear/serve/completion_request.h"
#include "spear/serve/token_text.h"

namespace spear {

class CompletionWriter final : public AnswerWriter {
 public:
  CompletionWriter(const ServedModel& model, const CompletionRequest& request, std::string id);

  void add(size_t prompt, const StreamEvent& event, std::string& out) override;
  void finish(std::string& out) override;

 private:
  struct Choice {
    std::string text;
    CompletionLogprobs logprobs;
    std::optional<Finish> finish;
    bool begun = false;
  };
  Choice& choice_of(size_t prompt, int32_t choice);
  void begin(Choice& choice, size_t prompt);
  [[nodiscard]] Json choice_json(size_t index, Choice& choice);
  [[nodiscard]] Json prompt_logprobs_json(size_t prompt) const;

  const Tokenizer& tokenizer_;
  ReplyFrame frame_;
  size_t answers_;  // of each prompt
  bool wants_logprobs_, echo_, lists_prompt_;
  std::vector<std::string> texts_;                              // echoed, by prompt
  std::vector<std::vector<StreamEvent::Token>> prompt_tokens_;  // with log-probabilities, by prompt
  std::vector<Choice> choices_;                                 // prompt by prompt
};

}  // namespace spear
