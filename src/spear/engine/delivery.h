// Gives an answer's tokens and text to its request's sink, and ends answers and requests. Used by
// the engine's thread.
#pragma once

#include <vector>

#include "spear/engine/answer.h"
#include "spear/engine/engine.h"

namespace spear {

class Delivery {
 public:
  explicit Delivery(EngineStats& stats) : stats_(stats) {}

  // The first `count` tokens of Answer::chosen and the text that became certain.
  void tokens(Answer& answer, size_t count);
  // Answer::prompt_chosen; before them the prompt's first token, once.
  void prompt(Answer& answer);
  // The answer's last word: with `count` tokens as above, the rest of its text, and why it ended.
  void finish(Answer& answer, size_t count, Finish finish, double now);

 private:
  void send(Answer& answer, const ChosenTokens& chosen, size_t count, int32_t choice,
            std::string_view text, const Finish* finish);
  void keep(Answer& answer, size_t count);
  void give_best(ActiveRequest& request);
  std::span<const OutputToken> views(const ChosenTokens& chosen, size_t count);

  EngineStats& stats_;
  std::vector<OutputToken> views_;
};

}  // namespace spear
