#include "spear/engine/engine.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/engine/engine_loop.h"

namespace spear {
namespace {

Admission refused(AdmissionCode code, std::string message) {
  return {code, 0, std::move(message)};
}

const char* refusal(AdmissionCode code) {
  switch (code) {
    case AdmissionCode::kQueueFull:
      return "the queue of waiting requests is full; try again later";
    case AdmissionCode::kDraining:
      return "the engine is being shut down and takes no more requests";
    default:
      return "the engine has failed and takes no more requests";
  }
}

uint64_t mixed(uint64_t seed, uint64_t id) {
  uint64_t h = seed + id * 0x9e3779b97f4a7c15ULL;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
  return h ^ (h >> 27);
}

}  // namespace

Engine::Engine(StepModel& model, const Tokenizer* tokenizer, const EngineOptions& options)
    : loop_(std::make_unique<Loop>(model, tokenizer, options)) {}

Engine::~Engine() = default;

Admission Engine::submit(Request request, std::shared_ptr<TokenSink> sink) {
  return loop_->submit(std::move(request), std::move(sink));
}

Admission Engine::foresee(int64_t prompt_tokens, double ttft_objective, int32_t priority) const {
  return loop_->foresee(prompt_tokens, ttft_objective, priority);
}

void Engine::cancel(uint64_t id) {
  loop_->mailbox().cancel(id);
}

bool Engine::drain(double seconds) {
  Mailbox& mailbox = loop_->mailbox();
  mailbox.close(AdmissionCode::kDraining);
  if (mailbox.wait_until_idle(seconds)) return true;
  constexpr double kStep = 3600;  // a step ends, however long the model takes
  do mailbox.cancel_all();
  while (!mailbox.wait_until_idle(kStep));
  return false;
}

EngineStats Engine::stats() const {
  return loop_->mailbox().stats();
}

bool Engine::healthy() const {
  return loop_->healthy();
}

const RequestLimits& Engine::limits() const {
  return loop_->limits();
}

double Engine::now() const {
  return loop_->now();
}

const Tokenizer* Engine::tokenizer() const {
  return loop_->tokenizer();
}

std::shared_ptr<const TokenTrie> Engine::vocabulary() {
  return loop_->vocabulary();
}

VocabularyPointer Engine::Loop::vocabulary() {
  std::call_once(vocabulary_once_, [this] {
    if (tokenizer_ != nullptr) vocabulary_ = std::make_shared<const TokenTrie>(*tokenizer_);
  });
  return vocabulary_;
}

// An objective that the prompt alone misses is the client's mistake; one that those before it make
// it miss can be met later.
Admission Engine::Loop::foresee(int64_t prompt_tokens, double ttft_objective,
                                int32_t priority) const {
  Admission admission;
  const double objective = ttft_objective > 0 ? ttft_objective : options_.ttft_objective;
  if (options_.costs == nullptr || !options_.refuse_late || objective <= 0) return admission;
  Sequence probe;
  probe.arrival = now();
  probe.priority = priority;
  probe.ttft_deadline = probe.arrival + objective;
  const double turn = turn_of(probe, options_.patience);
  admission.expected_ttft = mailbox_.expected_ttft(turn, prompt_tokens);
  if (admission.expected_ttft <= objective) return admission;
  admission.code = AdmissionCode::kTooLate;
  admission.retry_after = admission.expected_ttft - objective;
  admission.message = fmt::format(
      "the first token is expected in {:.2f} s, later than the objective of {:.2f} s; try again in "
      "{:.1f} s",
      admission.expected_ttft, objective, admission.retry_after);
  return admission;
}

Admission Engine::Loop::submit(Request request, std::shared_ptr<TokenSink> sink) {
  if (const Result<void> valid = validate(request, limits_); !valid)
    return refused(AdmissionCode::kInvalid, valid.error().message);
  if (tokenizer_ == nullptr && (!request.stop.empty() || request.constraint))
    return refused(AdmissionCode::kInvalid,
                   "stop strings and constraints need a tokenizer, and this engine has none");
  if (request.bare && !model_.runs_bare_rows())
    return refused(AdmissionCode::kInvalid,
                   "compensators: this model cannot leave them out of single requests here");
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t context = limits_.max_context;
  if (prompt >= context && request.max_tokens > 0)
    return refused(AdmissionCode::kTooLong,
                   fmt::format("the prompt has {} tokens, the context {}: nothing is left for an "
                               "answer; shorten the prompt",
                               prompt, context));
  if (prompt > context || request.max_tokens > context - prompt)
    return refused(AdmissionCode::kTooLong,
                   fmt::format("the prompt has {} tokens and the answer may have {}, together more "
                               "than the context of {}; shorten one of them",
                               prompt, request.max_tokens, context));
  if (Admission late = foresee(prompt, request.ttft_objective, request.priority);
      late.code != AdmissionCode::kAccepted) {
    mailbox_.count_refused();
    return late;
  }
  if (request.ttft_objective == 0) request.ttft_objective = options_.ttft_objective;
  if (request.itl_objective == 0) request.itl_objective = options_.itl_objective;
  auto active = std::make_unique<ActiveRequest>();
  active->request = std::move(request);
  active->sink = std::move(sink);
  active->arrival = now();
  const Request& r = active->request;
  const int32_t count = std::max(r.n, r.best_of);
  active->tokens_at_most = count * (prompt + r.max_tokens);
  // The id is not known yet; what is drawn when no seed is given only has to differ.
  const uint64_t seed =
      r.sampling.seed ? *r.sampling.seed : mixed(options_.seed, submitted_.fetch_add(1));
  for (int32_t c = 0; c < count; ++c)
    active->answers.push_back(std::make_unique<Answer>(*active, c, seed, tokenizer_,
                                                       model_.page_size(), options_.max_draft));
  Sequence& first = active->answers[0]->sequence;
  first.siblings = count - 1;
  first.turn = turn_of(first, options_.patience);
  Admission admission;
  admission.code = mailbox_.put(std::move(active), admission.id);
  if (admission.code != AdmissionCode::kAccepted) admission.message = refusal(admission.code);
  return admission;
}

}  // namespace spear
