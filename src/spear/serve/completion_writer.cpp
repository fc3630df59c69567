#include "spear/serve/completion_writer.h"

#include "spear/base/json.h"

namespace spear {

CompletionWriter::CompletionWriter(const ServedModel& model, const CompletionRequest& request,
                                   std::string id)
    : tokenizer_(model.tokenizer()),
      frame_(model, request.fields, std::move(id), "text_completion"),
      answers_(static_cast<size_t>(request.fields.request.n)),
      wants_logprobs_(request.fields.request.logprobs >= 0),
      echo_(request.echo),
      lists_prompt_(request.prompt_logprobs),
      texts_(request.texts),
      prompt_tokens_(request.requests.size()) {
  for (const Request& one : request.requests) frame_.add_prompt(std::ssize(one.prompt));
  choices_.reserve(request.requests.size() * answers_);
  for (size_t i = 0; i < request.requests.size() * answers_; ++i)
    choices_.push_back(
        {{}, CompletionLogprobs(tokenizer_, request.fields.request.skip_special), {}, false});
}

CompletionWriter::Choice& CompletionWriter::choice_of(size_t prompt, int32_t choice) {
  return choices_[prompt * answers_ + static_cast<size_t>(choice)];
}

// The echoed prompt stands before the answer.
void CompletionWriter::begin(Choice& choice, size_t prompt) {
  choice.begun = true;
  if (!echo_) return;
  choice.text = texts_[prompt];
  if (!wants_logprobs_) return;
  bool known = false;  // nothing comes before the first token
  for (const StreamEvent::Token& token : prompt_tokens_[prompt]) {
    choice.logprobs.add(token, known);
    known = true;
  }
}

void CompletionWriter::add(size_t prompt, const StreamEvent& event, std::string& out) {
  frame_.note(prompt, event);
  if (event.prompt) {
    auto& tokens = prompt_tokens_[prompt];
    tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
    return;
  }
  Choice& choice = choice_of(prompt, event.choice);
  if (!choice.begun) begin(choice, prompt);
  choice.text += event.text;
  if (wants_logprobs_)
    for (const StreamEvent::Token& token : event.tokens) choice.logprobs.add(token, true);
  choice.finish = event.finish;
  const bool worth_a_chunk =
      !choice.text.empty() || event.finish || (wants_logprobs_ && !event.tokens.empty());
  if (!frame_.streaming().stream || !worth_a_chunk) return;
  const auto index = static_cast<size_t>(&choice - choices_.data());
  frame_.append_chunk(out, choice_json(index, choice));
  choice.text.clear();
}

Json CompletionWriter::choice_json(size_t index, Choice& choice) {
  Json json = {{"index", index}, {"text", choice.text}};
  json["logprobs"] = wants_logprobs_ ? choice.logprobs.take() : Json(nullptr);
  json["finish_reason"] = choice.finish ? Json(finish_text(choice.finish->reason)) : Json(nullptr);
  json["stop_reason"] = choice.finish ? stop_reason(*choice.finish, tokenizer_) : Json(nullptr);
  return json;
}

Json CompletionWriter::prompt_logprobs_json(size_t prompt) const {
  Json list = Json::array();
  for (const StreamEvent::Token& token : prompt_tokens_[prompt]) {
    if (list.empty()) {
      list.push_back(nullptr);
      continue;
    }
    Json entry = Json::object();
    const auto put = [&](const TokenLogprob& of, Json rank) {
      entry[std::to_string(of.token)] = {{"logprob", finite_logprob(of.logprob)},
                                         {"rank", std::move(rank)},
                                         {"decoded_token", token_string(tokenizer_, of.token)}};
    };
    int rank = 0;
    for (const TokenLogprob& other : token.top) put(other, ++rank);
    if (!entry.contains(std::to_string(token.token))) put({token.token, token.logprob}, nullptr);
    list.push_back(std::move(entry));
  }
  return list;
}

void CompletionWriter::finish(std::string& out) {
  if (frame_.streaming().stream) return frame_.append_end(out);
  Json list = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Json choice = choice_json(i, choices_[i]);
    if (lists_prompt_) choice["prompt_logprobs"] = prompt_logprobs_json(i / answers_);
    list.push_back(std::move(choice));
  }
  frame_.append_body(out, std::move(list));
}

}  // namespace spear
