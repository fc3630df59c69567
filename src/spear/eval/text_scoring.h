// Scores windows of text: negative log likelihood, the best token and, beside a reference, the KL
// divergence of every prediction. Logits are made and used in chunks of rows; [tokens, vocab] never
// exists whole. One thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/base/progress.h"
#include "spear/eval/protocol.h"
#include "spear/eval/row_scorer.h"
#include "spear/eval/shard_store.h"
#include "spear/eval/window_runner.h"
#include "spear/model/decoder.h"

namespace spear {

// Of every scored position, window after window: [windows, predictions].
struct TokenScores {
  std::vector<float> nll;     // −log p(target), nats
  std::vector<int32_t> best;  // the most likely token
  std::vector<float> kl;      // KL(reference ‖ model), nats; empty for the reference itself
};

// A model under a name that caches can be keyed by. `identity` empty: unknown, its scores are not
// kept on disk.
struct ScoredModel {
  std::string label;     // for progress and errors: "reference", a path
  std::string identity;  // hash of the model's content
  Compute compute = Compute::kBF16;
  DType kv = DType::kF32;  // of its keys and values
};

struct ScoringOptions {
  std::filesystem::path cache_folder;  // empty: nothing is kept on disk
  int64_t batch_rows = 2048;           // tokens of one forward pass, at least a window
};

// The final hidden states of a reference model at the scored positions, and its scores. They are
// stored as BF16 where products are BF16 (the head rounds its input to BF16, so nothing is lost)
// and as F32 where they are F32; logits are recomputed from them by the head.
class ReferenceStates {
 public:
  ReferenceStates(Decoder& decoder, ScoredModel model, const Windows& windows,
                  const ScoringOptions& options);

  // Computes what is not stored yet. Throws Failure(kInterrupted) when asked to stop; finished
  // pieces stay.
  void compute(Progress& progress);
  [[nodiscard]] const TokenScores& scores() const { return scores_; }
  // Hidden states of the scored positions of a window as F32 on the host, [predictions, hidden].
  void hidden(int64_t window, std::vector<float>& out);

 private:
  [[nodiscard]] size_t state_bytes(int64_t windows) const;
  bool load_shard(int64_t shard);
  void compute_shard(int64_t shard, Progress& progress);
  friend TokenScores score_against(Decoder&, const ScoredModel&, ReferenceStates&, const Windows&,
                                   const ScoringOptions&, Progress&);

  Decoder* decoder_;
  ScoredModel model_;
  const Windows* windows_;
  ScoringOptions options_;
  DType stored_;
  ShardStore store_;
  TokenScores scores_;
  std::optional<WindowRunner> runner_;  // while pieces are computed
  std::optional<RowScorer> scorer_;
  int64_t loaded_shard_ = -1;
  std::vector<std::byte> loaded_;  // payload of loaded_shard_
};

// Scores a model on the same windows, with the KL to the reference.
TokenScores score_against(Decoder& decoder, const ScoredModel& model, ReferenceStates& reference,
                          const Windows& windows, const ScoringOptions& options,
                          Progress& progress);

// Scores a model alone: no KL.
TokenScores score_alone(Decoder& decoder, const ScoredModel& model, const Windows& windows,
                        const ScoringOptions& options, Progress& progress);

}  // namespace spear
