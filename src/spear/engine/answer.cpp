#include "spear/engine/answer.h"

#include <algorithm>

namespace spear {
namespace {

// What the quantized model alone computed is not shared with what it computed with compensators.
constexpr uint64_t kBareSalt = 0x6261726520726f77ULL;

// Ids of sequences: a request's answers stand together, in order.
constexpr int kChoiceBits = 8;

}  // namespace

Answer::Answer(ActiveRequest& owner, int32_t number, uint64_t seed, const Tokenizer* tokenizer,
               int64_t page_size, int64_t max_draft)
    : request(owner),
      choice(number),
      sampler(owner.request.sampling, seed, number, owner.request.prompt, owner.request.max_tokens),
      text(tokenizer, owner.request.skip_special, owner.request.stop, owner.request.include_stop) {
  const Request& r = owner.request;
  const auto prompt = static_cast<int64_t>(r.prompt.size());
  Sequence& s = sequence;

  s.owner = this;
  s.priority = r.priority;
  s.arrival = owner.arrival;
  if (r.ttft_objective > 0) s.ttft_deadline = owner.arrival + r.ttft_objective;
  if (r.itl_objective > 0) s.itl_objective = r.itl_objective;
  s.max_tokens = prompt + r.max_tokens;
  s.prompt_tokens = prompt;
  s.full_quality = r.full_quality;
  s.cache_salt = r.bare ? r.cache_salt ^ kBareSalt : r.cache_salt;
  s.use_prefix_cache = r.use_prefix_cache;
  s.wants_all_logits = r.prompt_logprobs >= 0 && number == 0;
  reserve_for_life(s, page_size, max_draft);
  s.tokens.assign(r.prompt.begin(), r.prompt.end());

  chosen.tokens.reserve(static_cast<size_t>(1 + max_draft));
  if (max_draft > 0 && r.speculate) lookup = PromptLookup(s.max_tokens);
  if (r.constraint) matcher.emplace(r.constraint);
}

void Answer::number(uint64_t request_id) {
  sequence.id = (request_id << kChoiceBits) | static_cast<uint64_t>(choice);
}

}  // namespace spear
