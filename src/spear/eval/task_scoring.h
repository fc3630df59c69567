// Scores a model on questions: the log likelihood of every answer, from which accuracies follow.
// Log likelihoods are kept in pieces on disk like those of texts. One thread at a time.
#pragma once

#include <vector>

#include "spear/base/error.h"
#include "spear/base/progress.h"
#include "spear/eval/continuation_scorer.h"
#include "spear/eval/task_sets.h"
#include "spear/eval/text_encoder.h"
#include "spear/eval/text_scoring.h"
#include "spear/model/config.h"

namespace spear {

// A task as token ids.
struct EncodedTask {
  const TaskSet* set = nullptr;
  std::vector<ContinuationScorer::Group> groups;  // [questions]
  std::string content_hash;
};

// As lm-evaluation-harness does it: blanks that end a context go to the continuation, the whole is
// encoded at once, and what lies behind the context's own length is the continuation. Refuses, by
// line, what the model cannot read.
Result<EncodedTask> encode_task(const TaskSet& set, const TextEncoder& encoder,
                                const ModelConfig& config);

// [questions][choices]
using TaskScores = std::vector<std::vector<ContinuationScore>>;
TaskScores score_task(Decoder& decoder, const ScoredModel& model, const EncodedTask& task,
                      const ScoringOptions& options, Progress& progress);

// The answer a model gives: the likeliest (the first of equals), per byte where `normalised`.
int32_t chosen_answer(const Question& question, const std::vector<ContinuationScore>& scores,
                      bool normalised);

}  // namespace spear
