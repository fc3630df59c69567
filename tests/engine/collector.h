// A sink that remembers all it is told, and waits for the end.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "spear/engine/engine.h"
#include "spear/engine/token_stream.h"

namespace spear::test {

// An engine in which four answers of short prompts already meet every bound.
inline EngineOptions small_options() {
  EngineOptions options;
  options.max_running = 4;
  options.token_budget = 16;
  options.max_context = 64;
  options.check_invariants = true;
  return options;
}

struct Answered {
  std::string text;
  std::vector<std::string> pieces;  // as they came
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> tops;
  Finish finish;
  int finishes = 0;
};

struct Outcome {
  Admission admission;
  std::map<int32_t, Answered> answers;
  std::vector<StreamEvent::Token> prompt;
  [[nodiscard]] const Answered& only() const { return answers.at(0); }
};

// Reads a stream to its end, at most a minute.
inline Outcome read_all(const Admission& admission, TokenStream& stream) {
  Outcome outcome{.admission = admission, .answers = {}, .prompt = {}};
  if (admission.code != AdmissionCode::kAccepted) return outcome;
  while (auto event = stream.next(60)) {
    if (event->prompt) {
      outcome.prompt.insert(outcome.prompt.end(), event->tokens.begin(), event->tokens.end());
      continue;
    }
    Answered& answer = outcome.answers[event->choice];
    answer.text += event->text;
    if (!event->text.empty()) answer.pieces.push_back(event->text);
    for (const StreamEvent::Token& token : event->tokens) {
      answer.tokens.push_back(token.token);
      answer.logprobs.push_back(token.logprob);
      answer.tops.push_back(token.top);
    }
    if (event->finish) {
      answer.finish = *event->finish;
      ++answer.finishes;
    }
  }
  return outcome;
}

inline Outcome ask(Engine& engine, Request request) {
  auto stream = std::make_shared<TokenStream>(request.n);
  const Admission admission = engine.submit(std::move(request), stream);
  return read_all(admission, *stream);
}

// Several at once.
inline std::vector<Outcome> ask_all(Engine& engine, std::vector<Request> requests) {
  std::vector<std::pair<Admission, std::shared_ptr<TokenStream>>> open;
  for (Request& request : requests) {
    auto stream = std::make_shared<TokenStream>(request.n);
    const Admission admission = engine.submit(std::move(request), stream);
    open.emplace_back(admission, stream);
  }
  std::vector<Outcome> outcomes;
  for (auto& [admission, stream] : open) outcomes.push_back(read_all(admission, *stream));
  return outcomes;
}

// Greedy, no end tokens.
inline Request greedy(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace spear::test
