#include "spear/eval/continuation_scorer.h"

#include <algorithm>
#include <cstring>

#include "spear/base/check.h"
#include "spear/eval/window_runner.h"

namespace spear {
namespace {

using Group = ContinuationScorer::Group;

// A member is run on all its tokens but the last, which is only predicted.
int64_t input_length(const ScoredTokens& member) {
  return static_cast<int64_t>(member.tokens.size()) - 1;
}

int64_t longest_input(const Group& group) {
  int64_t longest = 0;
  for (const ScoredTokens& member : group) longest = std::max(longest, input_length(member));
  return longest;
}

int64_t shared_prefix(const Group& group) {
  int64_t shared = input_length(group.front());
  for (const ScoredTokens& member : group) {
    shared = std::min(shared, input_length(member));
    const auto end = group.front().tokens.begin() + shared;
    shared = std::mismatch(group.front().tokens.begin(), end, member.tokens.begin()).first -
             group.front().tokens.begin();
  }
  return shared;
}

int64_t rounded_to_pages(int64_t tokens) {
  return KvCache::pages_for(tokens) * KvCache::kPageSize;
}

}  // namespace

// A group in a slot of the cache.
struct ContinuationScorer::Slot {
  const Group* group = nullptr;
  std::vector<ContinuationScore>* scores = nullptr;
  int64_t shared = 0;  // leading tokens that all members share
};

// What one forward pass runs, and which of its rows predict what for whom.
struct ContinuationScorer::Pass {
  struct Pick {
    int64_t row;
    int32_t target;
    ContinuationScore* credited;
  };
  std::vector<int32_t> tokens;
  std::vector<AttentionSequence> sequences;
  std::vector<Pick> picks;

  // Appends tokens [begin, end) of a member to sequence `slot`; returns the row of token `begin`.
  int64_t append(KvCache& cache, int64_t slot, const ScoredTokens& member, int64_t begin,
                 int64_t end) {
    const auto first_row = static_cast<int64_t>(tokens.size());
    if (end == begin) return first_row;
    sequences.push_back(cache.append(slot, first_row, end - begin));
    tokens.insert(tokens.end(), member.tokens.begin() + begin, member.tokens.begin() + end);
    return first_row;
  }
};

ContinuationScorer::ContinuationScorer(Decoder& decoder, int64_t batch_rows, DType kv)
    : decoder_(&decoder), batch_rows_(batch_rows), kv_(kv), scorer_(decoder) {}

std::vector<std::vector<ContinuationScore>> ContinuationScorer::score(std::span<const Group> groups,
                                                                      Progress& progress) {
  std::vector<std::vector<ContinuationScore>> scores(groups.size());
  std::vector<Slot> slots;
  for (size_t i = 0; i < groups.size(); ++i) {
    expects(!groups[i].empty());
    for (const ScoredTokens& member : groups[i])
      expects(member.scored_from >= 1 &&
              member.scored_from < static_cast<int64_t>(member.tokens.size()));
    scores[i].resize(groups[i].size());
    slots.push_back({&groups[i], &scores[i], shared_prefix(groups[i])});
  }
  // Longest first: sequences of like length share a pass, and the largest need for memory comes at
  // once.
  std::stable_sort(slots.begin(), slots.end(), [](const Slot& a, const Slot& b) {
    return longest_input(*a.group) > longest_input(*b.group);
  });
  for (size_t begin = 0; begin < slots.size();) {
    stop_if_asked(progress);
    prepare_cache(longest_input(*slots[begin].group), static_cast<int64_t>(slots.size() - begin));
    const size_t count = std::min(static_cast<size_t>(cache_slots_), slots.size() - begin);
    run_batch(std::span(slots).subspan(begin, count));
    progress.advance(static_cast<int64_t>(count));
    begin += count;
  }
  return scores;
}

void ContinuationScorer::prepare_cache(int64_t longest, int64_t groups) {
  const int64_t capacity = rounded_to_pages(longest);
  if (cache_ && cache_->capacity() == capacity) return;
  cache_.reset();
  cache_slots_ = std::clamp<int64_t>(batch_rows_ / capacity, 1, groups);
  cache_.emplace(decoder_->backend(), decoder_->config(), cache_slots_, capacity, true, kv_);
}

void ContinuationScorer::run_batch(std::span<Slot> slots) {
  cache_->reset_all();
  Pass beginnings;
  size_t most_members = 0;
  for (size_t s = 0; s < slots.size(); ++s) {
    const Slot& slot = slots[s];
    const Group& group = *slot.group;
    const int64_t row =
        beginnings.append(*cache_, static_cast<int64_t>(s), group.front(), 0, slot.shared);
    for (size_t j = 0; j < group.size(); ++j)
      for (int64_t p = group[j].scored_from - 1; p < slot.shared; ++p)
        beginnings.picks.push_back(
            {row + p, group[j].tokens[static_cast<size_t>(p + 1)], &(*slot.scores)[j]});
    most_members = std::max(most_members, group.size());
  }
  run(beginnings);
  for (size_t j = 0; j < most_members; ++j) {
    Pass endings;
    for (size_t s = 0; s < slots.size(); ++s) {
      const Slot& slot = slots[s];
      if (j >= slot.group->size()) continue;
      const ScoredTokens& member = (*slot.group)[j];
      cache_->truncate(static_cast<int64_t>(s), slot.shared);
      const int64_t end = input_length(member);
      const int64_t row =
          endings.append(*cache_, static_cast<int64_t>(s), member, slot.shared, end);
      for (int64_t p = std::max(slot.shared, member.scored_from - 1); p < end; ++p)
        endings.picks.push_back(
            {row + p - slot.shared, member.tokens[static_cast<size_t>(p + 1)], &(*slot.scores)[j]});
    }
    run(endings);
  }
}

void ContinuationScorer::run(Pass& pass) {
  if (pass.tokens.empty()) return;
  Backend& backend = decoder_->backend();
  const auto width = static_cast<size_t>(decoder_->config().hidden_size);
  const size_t bytes = pass.tokens.size() * width * sizeof(float);
  if (hidden_.bytes() < bytes) hidden_ = backend.allocate(bytes);
  decoder_->forward({pass.tokens, pass.sequences}, *cache_, hidden_.as<float>());
  if (pass.picks.empty()) return;

  std::vector<float> all(pass.tokens.size() * width);
  backend.download(all.data(), hidden_.as<float>(), bytes);
  std::vector<float> rows(pass.picks.size() * width);
  std::vector<int32_t> targets;
  for (size_t i = 0; i < pass.picks.size(); ++i) {
    std::memcpy(rows.data() + i * width,
                all.data() + static_cast<size_t>(pass.picks[i].row) * width, width * sizeof(float));
    targets.push_back(pass.picks[i].target);
  }
  const size_t picked_bytes = rows.size() * sizeof(float);
  if (picked_.bytes() < picked_bytes) picked_ = backend.allocate(picked_bytes);
  backend.upload(picked_.as<float>(), rows.data(), picked_bytes);
  std::vector<float> nll(targets.size());
  std::vector<int32_t> best(targets.size());
  scorer_.score(picked_.as<float>(), targets, {}, {nll, best, {}});
  for (size_t i = 0; i < pass.picks.size(); ++i) {
    ContinuationScore& score = *pass.picks[i].credited;
    score.log_likelihood -= static_cast<double>(nll[i]);
    score.greedy = score.greedy && best[i] == targets[i];
  }
}

}  // namespace spear
