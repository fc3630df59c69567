#include "spear/engine/engine_loop.h"

#include <algorithm>
#include <exception>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/log.h"

namespace spear {
namespace {

constexpr int64_t kLogitRows = 64;

int64_t longest_context(const StepModel& model, const EngineOptions& options) {
  if (options.max_context > model.max_context())
    throw Failure(ErrorCode::kUsage,
                  fmt::format("context: at most {} expected, which is what the model was made for, "
                              "found {}",
                              model.max_context(), options.max_context));
  const int64_t held = model.pages() * model.page_size();
  if (options.max_context > held || held < 2)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("KV cache: {} pages hold {} tokens, one sequence of the context may "
                              "have {}; give the cache more memory or ask for a shorter context",
                              model.pages(), held, std::max<int64_t>(options.max_context, 2)));
  if (options.max_context > 0) return options.max_context;
  return std::min(model.max_context(), held);
}

SchedulerOptions scheduler_options(const StepModel& model, const EngineOptions& options) {
  if (options.max_running < 1 || options.max_waiting < 1 || options.max_draft < 0 ||
      options.max_draft > kLogitRows)
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("engine: at least one running and one waiting request and drafts of 0 "
                    "to {} expected, found {}, {} and {}",
                    kLogitRows, options.max_running, options.max_waiting, options.max_draft));
  const int64_t least = options.max_running + model.page_size();
  if (options.token_budget < least)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("token budget: at least {} expected, a row for each of {} running "
                              "answers and a page of a prompt, found {}",
                              least, options.max_running, options.token_budget));
  if (options.deterministic && !model.rows_stand_alone())
    throw Failure(ErrorCode::kUsage,
                  "deterministic: a model that runs its sequences one by one is needed");
  return {.pages = static_cast<int32_t>(model.pages()),
          .page_size = model.page_size(),
          .max_running = options.max_running,
          .max_waiting = options.max_waiting,
          .token_budget = options.token_budget,
          .logit_rows = kLogitRows,
          .max_draft = options.deterministic ? 0 : options.max_draft,
          .fixed_shapes = options.deterministic,
          .patience = options.patience,
          .static_chunk = options.static_chunk,
          .max_level = options.max_level};
}

std::vector<int32_t> all_end_ids(const Tokenizer* tokenizer, std::vector<int32_t> ids) {
  if (tokenizer != nullptr)
    ids.insert(ids.end(), tokenizer->stop_ids().begin(), tokenizer->stop_ids().end());
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

Engine::Loop::Loop(StepModel& model, const Tokenizer* tokenizer, const EngineOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      options_(options),
      limits_(options.limits),
      start_(std::chrono::steady_clock::now()),
      costs_(options.costs != nullptr ? *options.costs : no_costs_),
      scheduler_(scheduler_options(model, options)),
      batch_(scheduler_.options()),
      mailbox_(options.max_waiting, options.max_waiting_tokens),
      chooser_(model.vocab_size(), all_end_ids(tokenizer, options.end_ids), options.pool),
      delivery_(counts_) {
  options_.max_draft = scheduler_.options().max_draft;
  limits_.vocab_size = model.vocab_size();
  limits_.max_context = longest_context(model, options);
  limits_.max_choices = std::min({limits_.max_choices, options.max_running, 256});
  const auto rows = static_cast<size_t>(options.token_budget);
  tokens_.reserve(rows);
  logit_rows_.reserve(rows);
  sequences_.reserve(static_cast<size_t>(options.max_running));
  bare_.reserve(rows);
  rows_.reserve(static_cast<size_t>(options.max_running));
  check_objectives();
  publish();
  thread_ = std::thread([this] { run(); });
}

// An objective that a single answer beside the least chunk of a prompt cannot keep is a mistake.
void Engine::Loop::check_objectives() const {
  if (!(options_.ttft_objective >= 0 && options_.itl_objective >= 0))
    throw Failure(ErrorCode::kUsage, "objectives: seconds, 0 (none) or more expected");
  if (options_.max_level < 0 || options_.max_level >= model_.levels())
    throw Failure(ErrorCode::kUsage, fmt::format("level: 0 to {} expected, found {}",
                                                 model_.levels() - 1, options_.max_level));
  if (options_.costs == nullptr || options_.itl_objective == 0) return;
  const double floor = costs_.seconds({.decode_sequences = 1,
                                       .decode_rows = 1,
                                       .prefill_tokens = kLeastChunk,
                                       .context_tokens = limits_.max_context / 2});
  if (options_.itl_objective < floor)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("inter-token objective: {:.1f} ms, but a step of one answer and {} "
                              "rows of a prompt takes {:.1f} ms here; ask for at least that",
                              1e3 * options_.itl_objective, kLeastChunk, 1e3 * floor));
}

Engine::Loop::~Loop() {
  mailbox_.close(AdmissionCode::kDraining);
  mailbox_.stop();
  thread_.join();
}

void Engine::Loop::run() {
  std::vector<std::unique_ptr<ActiveRequest>> fresh;
  fresh.reserve(static_cast<size_t>(options_.max_waiting));
  for (;;) {
    const bool goes_on = mailbox_.take(!active_.empty(), fresh);
    take_in(fresh);
    if (!goes_on) mailbox_.cancel_all();
    try {
      drop_cancelled();
      if (!goes_on) return;
      if (!healthy() && !active_.empty())  // they were queued while it happened
        throw Failure(ErrorCode::kInternal, "the device has failed before");
      step();
    } catch (const Failure& failure) {
      fail_all(failure.error().message);
    } catch (const std::exception& trouble) {
      fail_all(fmt::format("a step failed: {}", trouble.what()));
    }
    sweep();
    publish();
  }
}

void Engine::Loop::take_in(std::vector<std::unique_ptr<ActiveRequest>>& fresh) {
  for (auto& request : fresh) {
    Sequence& first = request->answers[0]->sequence;
    for (const auto& answer : request->answers)  // ids were given when the request was queued
      answer->number(request->id);
    const bool queued = scheduler_.add(first);
    expects(queued);  // the mailbox takes no more than there is room for
    active_.push_back(std::move(request));
  }
  fresh.clear();
}

// Sinks that listen no more have set the flag without the mailbox knowing.
void Engine::Loop::drop_cancelled() {
  mailbox_.take_cancellations();
  for (const auto& request : active_) {
    if (!request->cancelled.load(std::memory_order_relaxed)) continue;
    for (const auto& answer : request->answers)
      if (!answer->finished) end(*answer, 0, {.reason = FinishReason::kCancelled});
  }
  sweep();
}

void Engine::Loop::step() {
  if (active_.empty()) return;
  propose();
  const double planned = now();
  scheduler_.plan(planned, costs_, batch_);
  scheduler_.commit(batch_);
  if (batch_.empty()) {
    // Pages that were given back are planned with next time; anything else would be for ever.
    if (batch_.preempted.empty())
      throw Failure(ErrorCode::kInternal, "the scheduler found nothing to run");
    return;
  }
  note_starts();
  build();
  const double begin = now();
  const std::span<float> logits = model_.run({.copies = batch_.copies,
                                              .tokens = tokens_,
                                              .sequences = sequences_,
                                              .logit_rows = logit_rows_,
                                              .level = batch_.shape.level,
                                              .bare = bare_});
  chooser_.choose(rows_, logits);
  const double seconds = now() - begin;
  ++counts_.steps;
  counts_.last_step_seconds = seconds;
  counts_.busy_seconds += seconds;
  counts_.computed_prompt_tokens += batch_.shape.prefill_tokens;
  counts_.level = batch_.shape.level;
  if (batch_.shape.level > 0) ++counts_.steps_below_full;
  for (const StepRows& rows : rows_) handle(rows);
  // All that stands between two tokens counts: planning and handing out too.
  costs_.observe(batch_.shape, now() - planned);
  if (const char* wrong = options_.check_invariants ? scheduler_.check() : nullptr)
    throw Failure(ErrorCode::kInternal, wrong);
  if (options_.on_step) options_.on_step(batch_.shape, seconds);
}

void Engine::Loop::propose() {
  if (options_.max_draft == 0) return;
  for (Sequence* sequence : scheduler_.running()) {
    Answer& answer = answer_of(*sequence);
    sequence->draft.clear();
    if (sequence->decoding())
      answer.lookup.propose(sequence->tokens, options_.max_draft, sequence->draft);
  }
}

void Engine::Loop::note_starts() {
  for (const ScheduledStart& start : batch_.started) {
    ActiveRequest& request = answer_of(*start.sequence).request;
    if (request.has_started) continue;
    mailbox_.started(request);
    request.has_started = true;
    request.started = now();
    counts_.prompt_tokens += start.sequence->prompt_tokens;
  }
}

void Engine::Loop::build() {
  tokens_.clear();
  logit_rows_.clear();
  sequences_.clear();
  rows_.clear();
  bare_.clear();
  bool any_bare = false;
  for (const ScheduledRows& r : batch_.rows) {
    const Sequence& s = *r.sequence;
    const auto begin = s.tokens.begin() + r.context;
    tokens_.insert(tokens_.end(), begin, begin + (r.rows - r.drafts));
    tokens_.insert(tokens_.end(), s.draft.begin(), s.draft.begin() + r.drafts);
    sequences_.push_back({r.first_row, r.rows, r.context, s.pages.data()});
    const int64_t logits = s.wants_all_logits ? r.rows : r.samples ? 1 + r.drafts : 0;
    rows_.push_back({r, std::ssize(logit_rows_), logits});
    for (int64_t i = r.rows - logits; i < r.rows; ++i)
      logit_rows_.push_back(static_cast<int32_t>(r.first_row + i));
    const bool bare = answer_of(*r.sequence).request.request.bare;
    bare_.insert(bare_.end(), static_cast<size_t>(r.rows), bare ? 1 : 0);
    any_bare = any_bare || bare;
  }
  if (!any_bare) bare_.clear();
}

// Adds chosen tokens to the answer until one ends it; returns how many belong to it.
size_t Engine::Loop::take_tokens(Answer& answer, Finish& finish, bool& ended) {
  const Request& request = answer.request.request;
  Sequence& s = answer.sequence;
  size_t taken = 0;
  for (const ChosenToken& chosen : answer.chosen.tokens) {
    const bool last = ++taken == answer.chosen.tokens.size();
    s.tokens.push_back(chosen.token);
    ++answer.tokens;
    ++counts_.generated_tokens;
    answer.logprob_sum += static_cast<double>(chosen.logprob);
    const bool may_stop = answer.tokens >= request.min_tokens;
    ended = true;
    if (may_stop && chooser_.ends(request, chosen.token)) {
      finish.stop_id = chosen.token;
      return taken;
    }
    if (answer.text.push(chosen.token, may_stop)) return taken;
    if (last && answer.matcher && answer.matcher->complete()) return taken;
    finish.reason = FinishReason::kLength;
    if (s.length() == s.max_tokens) return taken;
    finish.reason = FinishReason::kStop;
    ended = false;
  }
  return taken;
}

void Engine::Loop::handle(const StepRows& r) {
  Answer& answer = answer_of(*r.rows.sequence);
  Sequence& s = answer.sequence;
  if (s.wants_all_logits) delivery_.prompt(answer);
  if (!r.rows.samples) {
    answer.level = std::max(answer.level, batch_.shape.level);
    return scheduler_.completed(s, r.rows.rows);
  }
  const int64_t pending = r.rows.rows - r.rows.drafts;
  if (answer.request.request.max_tokens == 0) {
    scheduler_.completed(s, pending);
    return end(answer, 0, {.reason = FinishReason::kLength});
  }
  const bool forks = !answer.request.has_forked;
  Finish finish;
  bool ended = false;
  const double time = now();
  answer.level = std::max(answer.level, batch_.shape.level);
  if (answer.first_token == 0) {
    answer.first_token = time;
  } else {
    ++answer.gaps;
    if (time - s.last_token > s.itl_objective) ++answer.late_gaps;
  }
  s.last_token = time;
  const size_t taken = take_tokens(answer, finish, ended);
  const auto right = std::max<int64_t>(static_cast<int64_t>(taken) - 1, 0);
  scheduler_.completed(s, pending + right);
  counts_.drafted_tokens += r.rows.drafts;
  counts_.accepted_drafts += right;
  answer.lookup.learned(r.rows.drafts, right);
  if (forks) fork_siblings(answer);
  if (answer.failure != nullptr)
    finish = {.reason = FinishReason::kError, .message = answer.failure};
  if (ended || answer.failure != nullptr) return end(answer, taken, std::move(finish));
  delivery_.tokens(answer, taken);
}

// The other answers go on from the first one's prompt, each with its own first token.
void Engine::Loop::fork_siblings(Answer& first) {
  ActiveRequest& request = first.request;
  request.has_forked = true;
  first.sequence.siblings = 0;
  for (size_t c = 1; c < request.answers.size(); ++c) {
    Answer& answer = *request.answers[c];
    Finish finish;
    bool ended = false;
    answer.first_token = first.first_token;
    answer.sequence.last_token = first.sequence.last_token;
    answer.level = first.level;
    answer.sequence.cached_tokens = first.sequence.cached_tokens;
    const size_t taken = take_tokens(answer, finish, ended);
    if (answer.failure != nullptr)
      finish = {.reason = FinishReason::kError, .message = answer.failure};
    if (ended || answer.failure != nullptr) {
      end(answer, taken, std::move(finish));
      continue;
    }
    scheduler_.fork(first.sequence, answer.sequence);
    delivery_.tokens(answer, taken);
  }
}

void Engine::Loop::end(Answer& answer, size_t tokens, Finish finish) {
  scheduler_.remove(answer.sequence);
  places_.ended(now());
  publish();  // whoever hears of the end finds its tokens counted
  delivery_.finish(answer, tokens, std::move(finish), now());
  some_ended_ = true;
}

void Engine::Loop::sweep() {
  if (!some_ended_) return;
  some_ended_ = false;
  publish();  // whoever waits for all of them finds how they ended
  std::erase_if(active_, [this](const std::unique_ptr<ActiveRequest>& request) {
    if (!request->finished()) return false;
    mailbox_.ended(*request);
    return true;
  });
}

void Engine::Loop::fail_all(const std::string& message) {
  log(LogLevel::kWarning, fmt::format("the engine stops: {}", message));
  failed_.store(true, std::memory_order_relaxed);
  mailbox_.close(AdmissionCode::kFailed);
  for (const auto& request : active_)
    for (const auto& answer : request->answers)
      if (!answer->finished) end(*answer, 0, {.reason = FinishReason::kError, .message = message});
}

void Engine::Loop::publish() {
  EngineStats stats = counts_;
  stats.running = static_cast<int32_t>(scheduler_.running().size());
  stats.pages = scheduler_.pool().size();
  stats.used_pages = stats.pages - scheduler_.pool().free_pages();
  stats.cached_pages = scheduler_.cached_free_pages();
  stats.prefix_queries = scheduler_.prefix_queries();
  stats.prefix_hits = scheduler_.prefix_hits();
  stats.preemptions = scheduler_.preemptions();
  stats.cost_error = costs_.error();
  stats.cost_headroom = costs_.headroom();
  stats.ttft_objective = options_.ttft_objective;
  stats.itl_objective = options_.itl_objective;
  mailbox_.publish(stats);
  if (options_.costs != nullptr) mailbox_.publish(forecast(scheduler_, costs_, places_.seconds()));
}

}  // namespace spear
