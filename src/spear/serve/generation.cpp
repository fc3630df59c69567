#include "spear/serve/generation.h"

#include <algorithm>

#include <fmt/format.h>

namespace spear {
namespace {

// Passes on what the engine says and times it where it is said, on the engine's thread: readers
// that are slow change no figure.
class TimedSink final : public TokenSink {
 public:
  TimedSink(const Engine& engine, ServeMetrics& metrics, std::shared_ptr<TokenStream> stream,
            const Request& request)
      : engine_(engine),
        metrics_(metrics),
        stream_(std::move(stream)),
        last_(static_cast<size_t>(request.n), engine.now()),
        begun_(static_cast<size_t>(request.n), false) {}

  bool on_delta(const Delta& delta) noexcept override {
    const auto choice = static_cast<size_t>(delta.choice);
    if (!delta.tokens.empty()) {
      const double now = engine_.now();
      const double gap = now - last_[choice];
      if (begun_[choice])
        metrics_.token_gap(gap);
      else
        metrics_.first_token(gap);
      begun_[choice] = true;
      last_[choice] = now;
    }
    if (delta.finish != nullptr) tell(*delta.finish);
    return stream_->on_delta(delta);
  }
  bool on_prompt(std::span<const OutputToken> tokens) noexcept override {
    return stream_->on_prompt(tokens);
  }

 private:
  void tell(const Finish& finish) noexcept {
    metrics_.answered(finish);
    if (finish.ttft_objective > 0 || finish.itl_objective > 0)
      metrics_.judged(met_objectives(finish));
  }

  const Engine& engine_;
  ServeMetrics& metrics_;
  std::shared_ptr<TokenStream> stream_;
  std::vector<double> last_;  // by answer
  std::vector<bool> begun_;
};

}  // namespace

double retry_after(const EngineStats& stats, double answers_per_second) {
  constexpr double kLeast = 1;
  constexpr double kMost = 60;
  if (answers_per_second <= 0) return kLeast;
  return std::clamp(static_cast<double>(stats.waiting) / answers_per_second, kLeast, kMost);
}

ApiError too_late(const Admission& admission) {
  return {429, admission.message, "", "slo_unattainable", std::max(admission.retry_after, 0.1)};
}

Generation::Generation(Engine& engine, ServeMetrics& metrics, std::unique_ptr<AnswerWriter> writer,
                       bool stream, std::function<void()> wake)
    : engine_(engine),
      metrics_(metrics),
      writer_(std::move(writer)),
      stream_(stream),
      wake_(std::move(wake)) {
  record_.stream = stream;
}

Generation::~Generation() {
  abandon();
}

ApiError Generation::refusal(const Admission& admission) const {
  switch (admission.code) {
    case AdmissionCode::kInvalid:
      return from_sentence(admission.message);
    case AdmissionCode::kTooLong:
      return {400, admission.message, "prompt", "context_length_exceeded"};
    case AdmissionCode::kQueueFull:
      return {429, admission.message, "", "queue_full",
              retry_after(engine_.stats(), metrics_.answers_per_second())};
    case AdmissionCode::kTooLate:
      return too_late(admission);
    case AdmissionCode::kDraining:
      return {503, admission.message, "", "draining", 1};
    default:
      return {503, admission.message, "", "engine_failed"};
  }
}

ApiResult<void> Generation::submit(std::vector<Request> requests) {
  constexpr size_t kEvents = 4096;  // a reader that falls so far behind loses its request
  for (Request& request : requests) {
    metrics_.accepted(request);
    record_.prompt_tokens += std::ssize(request.prompt);
    auto stream = std::make_shared<TokenStream>(request.n, kEvents, wake_);
    auto sink = std::make_shared<TimedSink>(engine_, metrics_, stream, request);
    const Admission admission = engine_.submit(std::move(request), std::move(sink));
    if (admission.code != AdmissionCode::kAccepted) {
      abandon();
      return refuse(refusal(admission));
    }
    parts_.push_back({admission.id, std::move(stream)});
  }
  return {};
}

void Generation::abandon() noexcept {
  for (Part& part : parts_) {
    if (part.ended) continue;
    part.ended = true;
    part.stream->close();
    engine_.cancel(part.id);
    if (!over_) record_.finish = "abandoned";
  }
  over_ = true;
}

void Generation::note(const StreamEvent& event) {
  if (event.prompt) return;
  record_.tokens += std::ssize(event.tokens);
  if (!event.finish) return;
  record_.finish = name_of(event.finish->reason);
  record_.cached_tokens = std::max(record_.cached_tokens, event.finish->cached_tokens);
  if (event.finish->first_token > 0)
    record_.first_token_seconds = event.finish->first_token - event.finish->arrival;
}

// An answer that could not be brought to its end: a status while there is still one to give, else
// an error event.
ExchangeState Generation::fail(const Finish& finish, HttpReply& reply, std::string& out) {
  const bool device = finish.reason == FinishReason::kError;
  const ApiError error =
      device ? ApiError{500, fmt::format("the answer could not be finished: {}", finish.message),
                        "", "engine_error"}
             : ApiError{503, "the server is being shut down; the answer was cut off", "",
                        "draining", 1};
  over_ = true;
  abandon();
  if (!begun_) {
    reply = error_reply(error);
    return ExchangeState::kReply;
  }
  append_event(out, error_body(error));
  out += kDoneEvent;
  return ExchangeState::kEnd;
}

ExchangeState Generation::poll(HttpReply& reply, std::string& out) {
  if (over_) return ExchangeState::kWaiting;
  bool all_ended = true;
  for (size_t p = 0; p < parts_.size(); ++p) {
    Part& part = parts_[p];
    while (!part.ended) {
      const std::optional<StreamEvent> event = part.stream->try_next();
      if (!event) break;
      note(*event);
      if (event->finish && (event->finish->reason == FinishReason::kError ||
                            event->finish->reason == FinishReason::kCancelled))
        return fail(*event->finish, reply, out);
      writer_->add(p, *event, out);
      part.ended = part.stream->finished();
    }
    all_ended = all_ended && part.ended;
  }
  if (!all_ended) {
    if (out.empty()) return ExchangeState::kWaiting;
    begun_ = true;
    return ExchangeState::kStream;
  }
  over_ = true;
  writer_->finish(out);
  if (stream_) return ExchangeState::kEnd;
  reply = {.body = std::move(out)};
  out.clear();
  return ExchangeState::kReply;
}

}  // namespace spear
