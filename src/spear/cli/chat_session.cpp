#include "spear/cli/chat_session.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "spear/tokenizer/stream_decoder.h"

namespace spear {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kRoomForAnswer = 32;  // tokens that a prompt must leave free

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t checked_context(const ModelConfig& config, const ChatOptions& options) {
  if (options.context < 2 * kRoomForAnswer)
    throw Failure(ErrorCode::kUsage, fmt::format("--context: at least {} tokens expected, found {}",
                                                 2 * kRoomForAnswer, options.context));
  if (options.max_tokens < 1)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("--max-tokens: 1 or more expected, found {}", options.max_tokens));
  return std::min(options.context, config.max_position_embeddings);
}

std::optional<ChatTemplate> read_template(const OpenedModel& model) {
  if (model.chat_template.empty()) return std::nullopt;
  Result<ChatTemplate> parsed = ChatTemplate::parse(model.chat_template);
  if (!parsed)
    throw Failure(parsed.error().code, fmt::format("{}: chat template: {}", model.path.string(),
                                                   parsed.error().message));
  return std::move(*parsed);
}

std::string text_of(const Tokenizer& tokenizer, int32_t id) {
  return tokenizer.is_id(id) ? tokenizer.decode({&id, 1}) : std::string();
}

}  // namespace

ChatSession::ChatSession(const OpenedModel& model, Decoder& decoder, const ChatOptions& options)
    : model_(model),
      options_(options),
      template_(read_template(model)),
      generator_(decoder, checked_context(model.config(), options)),
      sampler_(options.sampling),
      system_(options.system) {
  value_or_throw(validate(options.sampling));
}

std::vector<int32_t> ChatSession::prompt_ids() const {
  const Tokenizer& tokenizer = *model_.tokenizer;
  if (!template_) return tokenizer.encode(messages_.back().content, {.add_special = true});
  std::vector<ChatMessage> messages;
  if (!system_.empty()) messages.push_back({"system", system_});
  messages.insert(messages.end(), messages_.begin(), messages_.end());
  const std::string prompt = value_or_throw(template_->render(
      messages, text_of(tokenizer, tokenizer.bos_id()), text_of(tokenizer, tokenizer.eos_id())));
  return tokenizer.encode(prompt, {.add_special = false, .parse_special = true});
}

// The oldest question and its answer are forgotten until the rest fits.
std::vector<int32_t> ChatSession::fitting_prompt(int64_t& forgotten) {
  for (;;) {
    std::vector<int32_t> ids = prompt_ids();
    const auto tokens = static_cast<int64_t>(ids.size());
    if (ids.empty()) throw Failure(ErrorCode::kUsage, "the message is empty: it has no tokens");
    if (tokens + kRoomForAnswer <= generator_.context()) return ids;
    if (messages_.size() < 3) {
      messages_.clear();
      throw Failure(ErrorCode::kUsage,
                    fmt::format("the message has {} tokens with its template, the context has room "
                                "for {} and an answer; shorten it, or give --context up to {}",
                                tokens, generator_.context() - kRoomForAnswer,
                                model_.config().max_position_embeddings));
    }
    messages_.erase(messages_.begin(), messages_.begin() + 2);
    forgotten += 2;
  }
}

bool ChatSession::ends(int32_t id) const {
  const auto in = [id](const std::vector<int32_t>& list) {
    return std::find(list.begin(), list.end(), id) != list.end();
  };
  return in(model_.tokenizer->stop_ids()) || in(model_.config().eos_token_ids);
}

void ChatSession::generate(std::vector<int32_t> ids, ChatAnswer& answer,
                           const std::function<void(std::string_view)>& on_text,
                           const std::function<bool()>& keep_going) {
  StreamDecoder decoder(*model_.tokenizer);
  const auto emit = [&](const std::string& piece) {
    answer.text += piece;
    if (!piece.empty()) on_text(piece);
  };
  Clock::time_point start = Clock::now();
  std::span<float> logits = generator_.advance_to(ids, keep_going);
  answer.prompt_seconds = seconds_since(start);
  answer.computed_tokens = generator_.computed();
  start = Clock::now();
  for (;;) {
    const int32_t id = sampler_.pick(logits, ids);
    if (ends(id)) {
      answer.stop = ChatStop::kEndToken;
      break;
    }
    ids.push_back(id);
    ++answer.tokens;
    // Rows that only pad the vocabulary have no text.
    if (model_.tokenizer->is_id(id)) emit(decoder.push(id));
    answer.stop = ChatStop::kInterrupted;
    if (!keep_going()) break;
    answer.stop = ChatStop::kMaxTokens;
    if (answer.tokens >= options_.max_tokens) break;
    answer.stop = ChatStop::kContextFull;
    if (static_cast<int64_t>(ids.size()) >= generator_.context()) break;
    logits = generator_.advance_to(ids, keep_going);
  }
  answer.seconds = seconds_since(start);
  emit(decoder.finish());
}

ChatAnswer ChatSession::answer(std::string message,
                               const std::function<void(std::string_view)>& on_text,
                               const std::function<bool()>& keep_going) {
  ChatAnswer answer;
  messages_.push_back({"user", std::move(message)});
  std::vector<int32_t> ids = fitting_prompt(answer.forgotten);
  answer.prompt_tokens = static_cast<int64_t>(ids.size());
  generate(std::move(ids), answer, on_text, keep_going);
  messages_.push_back({"assistant", answer.text});
  if (!template_) messages_.clear();  // nothing joins one text to the next
  return answer;
}

}  // namespace spear
