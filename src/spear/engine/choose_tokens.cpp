#include "spear/engine/choose_tokens.h"

#include <algorithm>
#include <limits>

#include "spear/base/check.h"
#include "spear/base/thread_pool.h"

namespace spear {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

bool holds(std::span<const int32_t> ids, int32_t token) {
  return std::ranges::find(ids, token) != ids.end();
}

void add_logprobs(std::span<const float> raw, int32_t count, std::vector<TokenLogprob>& scratch,
                  ChosenTokens& out) {
  ChosenToken& chosen = out.tokens.back();
  chosen.logprob = log_probabilities(raw, chosen.token, count, scratch);
  chosen.top_begin = out.tops.size();
  chosen.top_count = scratch.size();
  out.tops.insert(out.tops.end(), scratch.begin(), scratch.end());
}

}  // namespace

TokenChooser::TokenChooser(int64_t vocab_size, std::vector<int32_t> end_ids, ThreadPool* pool)
    : vocab_size_(vocab_size), end_ids_(std::move(end_ids)), pool_(pool) {
  const int count = pool == nullptr ? 1 : pool->size();
  workspaces_.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    workspaces_.emplace_back(vocab_size);
    free_.push_back(&workspaces_.back());
  }
}

bool TokenChooser::ends(const Request& request, int32_t token) const {
  return holds(request.stop_ids, token) || (!request.ignore_eos && holds(end_ids_, token));
}

std::span<float> TokenChooser::row_of(std::span<float> logits, int64_t row) const {
  return logits.subspan(static_cast<size_t>(row * vocab_size_), static_cast<size_t>(vocab_size_));
}

void TokenChooser::choose(std::span<const StepRows> rows, std::span<float> logits) {
  const auto serve_some = [&](int64_t begin, int64_t end) {
    SamplerWorkspace* workspace = nullptr;
    {
      const std::lock_guard lock(mutex_);
      expects(!free_.empty());
      workspace = free_.back();
      free_.pop_back();
    }
    for (int64_t i = begin; i < end; ++i) serve(rows[static_cast<size_t>(i)], logits, *workspace);
    const std::lock_guard lock(mutex_);
    free_.push_back(workspace);
  };
  if (pool_ == nullptr || rows.size() < 2) {
    serve_some(0, std::ssize(rows));
  } else {
    pool_->parallel_for(std::ssize(rows), 1, serve_some);
  }
}

void TokenChooser::serve(const StepRows& r, std::span<float> logits, SamplerWorkspace& workspace) {
  Answer& answer = answer_of(*r.rows.sequence);
  const Request& request = answer.request.request;
  answer.chosen.clear();
  answer.failure = nullptr;
  if (answer.sequence.wants_all_logits) report_prompt(r, logits, workspace.top);
  if (!r.rows.samples || request.max_tokens == 0) return;
  const int64_t first = r.first_logit + r.logits - 1 - r.rows.drafts;
  if (!answer.request.has_forked) {  // the other answers start from the same logits
    for (size_t c = 1; c < answer.request.answers.size(); ++c) {
      Answer& sibling = *answer.request.answers[c];
      sibling.chosen.clear();
      std::ranges::copy(row_of(logits, first), workspace.row.begin());
      choose_one(sibling, workspace.row, workspace);
    }
  }
  for (int64_t d = 0; d <= r.rows.drafts; ++d) {
    if (!choose_one(answer, row_of(logits, first + d), workspace)) return;
    const int32_t token = answer.chosen.tokens.back().token;
    if (d == r.rows.drafts || token != answer.sequence.draft[static_cast<size_t>(d)]) return;
    if (ends(request, token) || (answer.matcher && answer.matcher->complete())) return;
  }
}

// Row i of a chunk tells of the prompt's token after it.
void TokenChooser::report_prompt(const StepRows& r, std::span<float> logits,
                                 std::vector<TokenLogprob>& top) {
  Answer& answer = answer_of(*r.rows.sequence);
  answer.prompt_chosen.clear();
  const Sequence& s = answer.sequence;

  for (int64_t i = 0; i < r.logits; ++i) {
    const int64_t next = r.rows.context + i + 1;
    if (next >= s.prompt_tokens || next <= answer.prompt_reported) continue;
    const int32_t token = s.tokens[static_cast<size_t>(next)];
    answer.prompt_chosen.tokens.push_back({.token = token});
    add_logprobs(row_of(logits, r.first_logit + i), answer.request.request.prompt_logprobs, top,
                 answer.prompt_chosen);
  }
}

void TokenChooser::forbid_ends(const Request& request, std::span<float> row) const {
  for (const int32_t id : end_ids_)
    if (id >= 0 && id < vocab_size_) row[static_cast<size_t>(id)] = kForbidden;
  for (const int32_t id : request.stop_ids) row[static_cast<size_t>(id)] = kForbidden;
}

bool TokenChooser::choose_one(Answer& answer, std::span<float> row, SamplerWorkspace& workspace) {
  const Request& request = answer.request.request;
  const bool logprobs = answer.request.wants_logprobs();
  if (logprobs) std::ranges::copy(row, workspace.raw.begin());
  answer.sampler.adjust(row);
  if (answer.tokens + std::ssize(answer.chosen.tokens) < request.min_tokens)
    forbid_ends(request, row);
  if (answer.matcher &&
      !answer.matcher->mask(row, request.ignore_eos ? std::span<const int32_t>() : end_ids_)) {
    answer.failure = answer.matcher->trouble();
    return false;
  }
  const int32_t token = answer.sampler.choose(row, workspace);
  if (token < 0) {
    answer.failure = answer.matcher || !request.sampling.logit_bias.empty()
                         ? "no token is allowed here: the constraint or the bias forbids them all"
                         : "the model's logits are not numbers: its weights are damaged";
    return false;
  }
  answer.chosen.tokens.push_back({.token = token});
  if (logprobs)
    add_logprobs(workspace.raw, std::max(request.logprobs, 0), workspace.top, answer.chosen);
  answer.sampler.accept(token);
  if (answer.matcher) answer.matcher->accept(token);
  return true;
}

}  // namespace spear
