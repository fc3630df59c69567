#include "spear/cli/chat_session.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "spear/base/memory_info.h"
#include "spear/cli/memory_check.h"

namespace spear {
namespace {

constexpr int64_t kRoomForAnswer = 32;  // tokens that a prompt must leave free
constexpr double kGlance = 0.05;        // seconds between two looks whether to go on

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

DecoderModelOptions cache_options(const ModelConfig& config, const ChatOptions& options,
                                  int64_t context) {
  const int64_t pages = KvCache::pages_for(context);
  const auto bytes = pages * static_cast<int64_t>(KvCache::page_bytes(config, options.kv_type));
  value_or_throw(require_memory(
      fmt::format("a cache for {} tokens of {}", context, kv_type_name(options.kv_type)), bytes,
      available_memory()));
  return {.pages = pages, .kv_type = options.kv_type, .rows_stand_alone = options.deterministic};
}

EngineOptions engine_options(const OpenedModel& model, ThreadPool& pool, const ChatOptions& options,
                             int64_t context) {
  EngineOptions engine;
  engine.max_running = 1;
  engine.max_waiting = 1;
  engine.max_context = context;
  engine.max_draft = options.max_draft;
  engine.deterministic = options.deterministic;
  engine.end_ids = model.config().eos_token_ids;
  engine.pool = &pool;
  return engine;
}

// The engine speaks of fields ("top_p: …"), people of options ("--top-p: …").
void check_options(const ChatOptions& options, const RequestLimits& limits) {
  Request plain;
  plain.prompt = {0};
  plain.sampling = options.sampling;
  plain.stop = options.stop;
  const Result<void> valid = validate(plain, limits);
  if (valid) return;
  std::string message = valid.error().message;
  std::replace(message.begin(), std::find(message.begin(), message.end(), ':'), '_', '-');
  throw Failure(ErrorCode::kUsage, "--" + message);
}

ConstraintPointer compile_constraint(const ChatOptions& options, Engine& engine) {
  if (!options.regex.empty() && !options.json_schema.empty())
    throw Failure(ErrorCode::kUsage, "--regex and --json-schema: only one of them expected");
  if (!options.regex.empty())
    return value_or_throw(compile_regex(options.regex, engine.vocabulary()));
  if (!options.json_schema.empty())
    return value_or_throw(compile_json_schema(options.json_schema, engine.vocabulary()));
  return nullptr;
}

}  // namespace

ChatSession::ChatSession(const OpenedModel& model, Decoder& decoder, ThreadPool& pool,
                         const ChatOptions& options)
    : model_(model),
      options_(options),
      context_(checked_context(model.config(), options)),
      template_(read_template(model)),
      runner_(decoder, cache_options(model.config(), options, context_)),
      system_(options.system) {
  engine_ = std::make_unique<Engine>(runner_, &*model.tokenizer,
                                     engine_options(model, pool, options, context_));
  check_options(options, engine_->limits());
  constraint_ = compile_constraint(options, *engine_);
}

std::vector<int32_t> ChatSession::prompt_ids() const {
  const Tokenizer& tokenizer = *model_.tokenizer;
  if (!template_) return tokenizer.encode(messages_.back().content, {.add_special = true});
  std::vector<ChatMessage> messages;
  if (!system_.empty()) messages.push_back({"system", system_});
  messages.insert(messages.end(), messages_.begin(), messages_.end());
  const std::string prompt = value_or_throw(template_->render(
      messages, tokenizer.text_of(tokenizer.bos_id()), tokenizer.text_of(tokenizer.eos_id())));
  return tokenizer.encode(prompt, {.add_special = false, .parse_special = true});
}

// The oldest question and its answer are forgotten until the rest fits.
std::vector<int32_t> ChatSession::fitting_prompt(int64_t& forgotten) {
  for (;;) {
    std::vector<int32_t> ids = prompt_ids();
    const auto tokens = static_cast<int64_t>(ids.size());
    if (ids.empty()) throw Failure(ErrorCode::kUsage, "the message is empty: it has no tokens");
    if (tokens + kRoomForAnswer <= context_) return ids;
    if (messages_.size() < 3) {
      messages_.clear();
      throw Failure(
          ErrorCode::kUsage,
          fmt::format("the message has {} tokens with its template, the context has room "
                      "for {} and an answer; shorten it, or give --context up to {}",
                      tokens, context_ - kRoomForAnswer, model_.config().max_position_embeddings));
    }
    messages_.erase(messages_.begin(), messages_.begin() + 2);
    forgotten += 2;
  }
}

Request ChatSession::request_for(std::vector<int32_t> ids) {
  Request request;
  request.max_tokens = std::min(options_.max_tokens, context_ - std::ssize(ids));
  request.prompt = std::move(ids);
  request.sampling = options_.sampling;
  request.sampling.seed = options_.sampling.seed.value_or(0) + turns_++;
  request.stop = options_.stop;
  request.constraint = constraint_;
  return request;
}

void ChatSession::conclude(const Finish& finish, const Request& request, ChatAnswer& answer) const {
  answer.computed_tokens = finish.prompt_tokens - finish.cached_tokens;
  answer.tokens = finish.tokens - (finish.stop_id >= 0 ? 1 : 0);
  const double first = finish.tokens > 0 ? finish.first_token : finish.finished;
  answer.prompt_seconds = first - finish.started;
  answer.seconds = finish.finished - first;
  switch (finish.reason) {
    case FinishReason::kStop:
      answer.stop = finish.stop_string.empty() ? ChatStop::kEndToken : ChatStop::kStopString;
      break;
    case FinishReason::kLength:
      answer.stop =
          request.max_tokens < options_.max_tokens ? ChatStop::kContextFull : ChatStop::kMaxTokens;
      break;
    case FinishReason::kCancelled:
      answer.stop = ChatStop::kInterrupted;
      break;
    case FinishReason::kError:
      throw Failure(ErrorCode::kInternal, finish.message);
  }
}

void ChatSession::generate(Request request, ChatAnswer& answer,
                           const std::function<void(std::string_view)>& on_text,
                           const std::function<bool()>& keep_going) {
  const auto stream = std::make_shared<TokenStream>(1, static_cast<size_t>(request.max_tokens) + 1);
  const Admission admission = engine_->submit(request, stream);
  if (admission.code != AdmissionCode::kAccepted)
    throw Failure(ErrorCode::kUsage, admission.message);
  while (!stream->finished()) {
    if (!keep_going()) engine_->cancel(admission.id);
    const std::optional<StreamEvent> event = stream->next(kGlance);
    if (!event) continue;
    answer.text += event->text;
    if (!event->text.empty()) on_text(event->text);
    if (event->finish) conclude(*event->finish, request, answer);
  }
}

ChatAnswer ChatSession::answer(std::string message,
                               const std::function<void(std::string_view)>& on_text,
                               const std::function<bool()>& keep_going) {
  ChatAnswer answer;
  messages_.push_back({"user", std::move(message)});
  std::vector<int32_t> ids = fitting_prompt(answer.forgotten);
  answer.prompt_tokens = static_cast<int64_t>(ids.size());
  generate(request_for(std::move(ids)), answer, on_text, keep_going);
  messages_.push_back({"assistant", answer.text});
  if (!template_) messages_.clear();  // nothing joins one text to the next
  return answer;
}

}  // namespace spear
