#include "spear/engine/delivery.h"

#include <algorithm>
#include <limits>

namespace spear {
namespace {

// A sink that listens no more cancels its request.
void told(ActiveRequest& request, bool listens) {
  if (!listens) request.cancelled.store(true, std::memory_order_relaxed);
}

// Answers that came to an end before those that were cut off; then by mean log-probability.
double rank(const Answer& answer) {
  const bool whole =
      answer.finish.reason == FinishReason::kStop || answer.finish.reason == FinishReason::kLength;
  if (!whole || answer.tokens == 0) return -std::numeric_limits<double>::infinity();
  return answer.logprob_sum / static_cast<double>(answer.tokens);
}

void count_finish(EngineStats& stats, FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      ++stats.finished_stop;
      break;
    case FinishReason::kLength:
      ++stats.finished_length;
      break;
    case FinishReason::kCancelled:
      ++stats.cancelled;
      break;
    case FinishReason::kError:
      ++stats.errors;
      break;
  }
}

}  // namespace

std::span<const OutputToken> Delivery::views(const ChosenTokens& chosen, size_t count) {
  views_.clear();
  for (size_t i = 0; i < count; ++i) {
    const ChosenToken& t = chosen.tokens[i];
    views_.push_back(
        {t.token, t.logprob, std::span(chosen.tops).subspan(t.top_begin, t.top_count)});
  }
  return views_;
}

void Delivery::send(Answer& answer, const ChosenTokens& chosen, size_t count, int32_t choice,
                    std::string_view text, const Finish* finish) {
  told(answer.request,
       answer.request.sink->on_delta(
           {.choice = choice, .text = text, .tokens = views(chosen, count), .finish = finish}));
}

void Delivery::keep(Answer& answer, size_t count) {
  answer.kept_text += answer.text.certain();
  for (size_t i = 0; i < count; ++i) {
    ChosenToken token = answer.chosen.tokens[i];
    const auto tops = std::span(answer.chosen.tops).subspan(token.top_begin, token.top_count);
    token.top_begin = answer.kept.tops.size();
    answer.kept.tops.insert(answer.kept.tops.end(), tops.begin(), tops.end());
    answer.kept.tokens.push_back(token);
  }
}

void Delivery::tokens(Answer& answer, size_t count) {
  if (answer.request.keeps_back()) {
    keep(answer, count);
  } else {
    send(answer, answer.chosen, count, answer.choice, answer.text.certain(), nullptr);
  }
  answer.text.clear_certain();
}

void Delivery::prompt(Answer& answer) {
  if (answer.prompt_reported == 0) {
    const OutputToken first{.token = answer.sequence.tokens.front()};
    told(answer.request, answer.request.sink->on_prompt({&first, 1}));
    // Counts positions told: the first one has no log-probability.
    if (answer.sequence.prompt_tokens == 1) answer.prompt_reported = 1;
  }
  const ChosenTokens& chosen = answer.prompt_chosen;
  if (chosen.tokens.empty()) return;
  answer.prompt_reported += std::ssize(chosen.tokens);
  told(answer.request, answer.request.sink->on_prompt(views(chosen, chosen.tokens.size())));
  answer.prompt_chosen.clear();
}

void Delivery::finish(Answer& answer, size_t count, Finish finish, double now) {
  ActiveRequest& request = answer.request;
  answer.text.finish();
  finish.stop_string = answer.text.stopped_by();
  finish.arrival = request.arrival;
  finish.started = request.started;
  finish.first_token = answer.first_token;
  finish.finished = now;
  finish.prompt_tokens = answer.sequence.prompt_tokens;
  finish.cached_tokens = answer.sequence.cached_tokens;
  finish.tokens = answer.tokens;
  finish.logprob_sum = answer.logprob_sum;
  finish.preemptions = answer.sequence.preemptions;
  finish.level = answer.level;
  finish.gaps = answer.gaps;
  finish.late_gaps = answer.late_gaps;
  finish.ttft_objective = request.request.ttft_objective;
  finish.itl_objective = request.request.itl_objective;
  answer.finish = std::move(finish);
  answer.finished = true;
  count_finish(stats_, answer.finish.reason);
  if (request.keeps_back()) {
    keep(answer, count);
    if (request.finished()) give_best(request);
  } else {
    send(answer, answer.chosen, count, answer.choice, answer.text.certain(), &answer.finish);
  }
  answer.text.clear_certain();
}

void Delivery::give_best(ActiveRequest& request) {
  std::vector<Answer*> order;
  for (const auto& answer : request.answers) order.push_back(answer.get());
  std::stable_sort(order.begin(), order.end(),
                   [](const Answer* a, const Answer* b) { return rank(*a) > rank(*b); });
  for (int32_t i = 0; i < request.request.n; ++i) {
    Answer& answer = *order[static_cast<size_t>(i)];
    if (request.request.logprobs < 0)
      for (ChosenToken& token : answer.kept.tokens) token.logprob = 0;
    send(answer, answer.kept, answer.kept.tokens.size(), i, answer.kept_text, &answer.finish);
  }
}

}  // namespace spear
