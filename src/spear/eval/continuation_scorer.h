// How likely a model finds given continuations. Many short sequences run in one forward pass; the
// beginning that the members of a group share is run once and kept in the KV cache. One thread at a
// time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "spear/base/progress.h"
#include "spear/eval/row_scorer.h"
#include "spear/model/decoder.h"
#include "spear/model/kv_cache.h"

namespace spear {

// Tokens of which those from `scored_from` on (1 <= scored_from < tokens.size()) are scored given
// all before them.
struct ScoredTokens {
  std::vector<int32_t> tokens;
  int64_t scored_from = 0;
};

struct ContinuationScore {
  double log_likelihood = 0;
  bool greedy = true;  // every scored token was the model's first choice
};

class ContinuationScorer {
 public:
  // `batch_rows`: about how many tokens one forward pass takes.
  ContinuationScorer(Decoder& decoder, int64_t batch_rows, DType kv = DType::kF32);

  // Members of a group are alternatives (answers to a question). Sequences must fit the model's
  // context.
  using Group = std::vector<ScoredTokens>;
  std::vector<std::vector<ContinuationScore>> score(std::span<const Group> groups,
                                                    Progress& progress);

 private:
  struct Slot;
  struct Pass;
  void prepare_cache(int64_t longest, int64_t groups);
  void run(Pass& pass);
  void run_batch(std::span<Slot> slots);

  Decoder* decoder_;
  int64_t batch_rows_;
  DType kv_;
  RowScorer scorer_;
  std::optional<KvCache> cache_;
  int64_t cache_slots_ = 0;
  DeviceBuffer hidden_, picked_;
};

}  // namespace spear
