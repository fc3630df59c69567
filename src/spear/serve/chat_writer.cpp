#include "spear/serve/chat_writer.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/serve/token_text.h"

namespace spear {

ChatWriter::ChatWriter(const ServedModel& model, const ChatRequest& request, std::string id)
    : tokenizer_(model.tokenizer()),
      id_(id),
      frame_(model, request.fields, std::move(id),
             request.fields.streaming.stream ? "chat.completion.chunk" : "chat.completion"),
      wants_logprobs_(request.logprobs),
      parallel_calls_(request.tools.parallel),
      choices_(static_cast<size_t>(request.request.n)) {
  frame_.add_prompt(std::ssize(request.request.prompt));
  if (request.tools.choice == ToolFields::Choice::kNone) return;
  for (Choice& choice : choices_) choice.calls.emplace(request.tools.names);
}

std::string ChatWriter::call_id(size_t choice, size_t call) const {
  return fmt::format("call_{}_{}_{}", id_.substr(id_.size() - std::min<size_t>(id_.size(), 16)),
                     choice, call);
}

size_t ChatWriter::call_count(const Choice& choice) const {
  if (!choice.calls) return 0;
  const size_t found = choice.calls->calls().size();
  return parallel_calls_ ? found : std::min<size_t>(found, 1);
}

Json ChatWriter::finish_json(const Choice& choice) const {
  if (!choice.finish) return nullptr;
  const bool called = call_count(choice) > 0 && choice.finish->reason == FinishReason::kStop;
  return called ? "tool_calls" : finish_text(choice.finish->reason);
}

Json ChatWriter::logprobs_json(Choice& choice) const {
  if (!wants_logprobs_) return nullptr;
  Json content = Json::array();
  for (const StreamEvent::Token& token : choice.tokens)
    content.push_back(chat_logprob(tokenizer_, token));
  choice.tokens.clear();
  return {{"content", std::move(content)}};
}

void ChatWriter::add(size_t prompt, const StreamEvent& event, std::string& out) {
  frame_.note(prompt, event);
  if (event.prompt) return;
  const auto index = static_cast<size_t>(event.choice);
  Choice& choice = choices_[index];
  if (wants_logprobs_)
    choice.tokens.insert(choice.tokens.end(), event.tokens.begin(), event.tokens.end());
  choice.finish = event.finish;
  std::string text = choice.calls ? choice.calls->push(event.text) : event.text;
  if (choice.calls && event.finish) text += choice.calls->finish();
  choice.content += text;
  if (frame_.streaming().stream) stream(index, choice, text, out);
}

void ChatWriter::send(size_t index, Choice& choice, Json delta, std::string& out, bool last) {
  Json json = {{"index", index}, {"delta", std::move(delta)}, {"logprobs", logprobs_json(choice)}};
  json["finish_reason"] = last ? finish_json(choice) : Json(nullptr);
  if (last) json["stop_reason"] = stop_reason(*choice.finish, tokenizer_);
  frame_.append_chunk(out, std::move(json));
}

void ChatWriter::stream(size_t index, Choice& choice, const std::string& text, std::string& out) {
  // The role comes with the first token, not before: clients take the first chunk's time.
  if (!choice.begun) {
    std::vector<StreamEvent::Token> tokens;
    tokens.swap(choice.tokens);
    send(index, choice, {{"role", "assistant"}, {"content", ""}}, out, false);
    tokens.swap(choice.tokens);
    choice.begun = true;
  }
  if (!text.empty() || (!choice.tokens.empty() && !choice.finish))
    send(index, choice, {{"content", text}}, out, false);
  for (const size_t calls = call_count(choice); choice.calls_sent < calls; ++choice.calls_sent) {
    const ToolCall& call = choice.calls->calls()[choice.calls_sent];
    const auto piece = [&](Json function) {
      return Json{{"index", choice.calls_sent}, {"function", std::move(function)}};
    };
    Json opening = piece({{"name", call.name}, {"arguments", ""}});
    opening["id"] = call_id(index, choice.calls_sent);
    opening["type"] = "function";
    send(index, choice, {{"tool_calls", Json::array({std::move(opening)})}}, out, false);
    send(index, choice, {{"tool_calls", Json::array({piece({{"arguments", call.arguments}})})}},
         out, false);
  }
  if (choice.finish) send(index, choice, Json::object(), out, true);
}

Json ChatWriter::message_json(size_t index, Choice& choice) const {
  Json message = {{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}};
  const size_t count = call_count(choice);
  if (count == 0) return message;
  if (choice.content.empty()) message["content"] = nullptr;
  Json calls = Json::array();
  for (size_t i = 0; i < count; ++i) {
    const ToolCall& call = choice.calls->calls()[i];
    calls.push_back({{"id", call_id(index, i)},
                     {"type", "function"},
                     {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  message["tool_calls"] = std::move(calls);
  return message;
}

void ChatWriter::finish(std::string& out) {
  if (frame_.streaming().stream) return frame_.append_end(out);
  Json list = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    list.push_back(
        {{"index", i},
         {"message", message_json(i, choice)},
         {"logprobs", logprobs_json(choice)},
         {"finish_reason", finish_json(choice)},
         {"stop_reason", choice.finish ? stop_reason(*choice.finish, tokenizer_) : Json(nullptr)}});
  }
  frame_.append_body(out, std::move(list));
}

}  // namespace spear
