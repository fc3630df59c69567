// What an evaluation found: the figures of every model on every text and task, beside their
// reference. The same record is printed, stored in artifacts as the quality certificate, and drawn
// by the report. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/json_fwd.h"
#include "spear/eval/statistics.h"
#include "spear/eval/task_scoring.h"
#include "spear/eval/text_scoring.h"

namespace spear {

// How far the predictions of a model lie from its reference's, at the scored positions.
struct Divergence {
  Interval kl;  // nats
  double kl_median = 0;
  double kl_p99 = 0;
  Interval top1_agreement;  // share of positions with the same likeliest token
  Interval log_ratio;       // ln(perplexity / reference perplexity), paired
  KlHistogram histogram;
};

struct TextResult {
  std::string name;       // "wikitext2@2048"
  std::string text_hash;  // sha256 of the windows' token ids
  int64_t tokens = 0;     // of the whole text
  int64_t windows = 0;    // evaluated
  int64_t scored = 0;     // predictions
  double perplexity = 0;
  double perplexity_stderr = 0;          // windows resampled
  double perplexity_stderr_tokens = 0;   // tokens taken as independent, as llama.cpp states it
  std::optional<Divergence> divergence;  // none for the reference
};

struct TaskResult {
  std::string name;
  TaskKind kind = TaskKind::kChoices;
  int64_t n = 0;
  double accuracy = 0;
  double accuracy_stderr = 0;
  std::optional<double> accuracy_norm, accuracy_norm_stderr;  // per byte; not for last words
  std::optional<double> perplexity;                           // of last words
  std::optional<double> answers_changed;  // share of answers unlike the reference's
};

struct ByteParts {
  uint64_t total = 0, weights = 0, scales = 0, zeros = 0, compensators = 0, biases = 0, norms = 0,
           embedding = 0, head = 0, other = 0;
};
Json to_json(const ByteParts& bytes);

struct ModelResult {
  std::string path;
  std::string content_hash;
  std::string compute;  // "f32", "bf16"
  ByteParts bytes;
  double bits_per_weight = 0;  // all stored bits of the linears over their weights
  std::vector<TextResult> texts;
  std::vector<TaskResult> tasks;
};

struct EvalResult {
  bool quick = false;  // a marked subset of texts and tasks
  std::string backend;
  std::string
      reference_states;  // how cached hidden states are kept: "bf16, logits recomputed by the head"
  ModelResult reference;
  std::vector<ModelResult> models;
};

// `reference` null: the result of the reference itself.
TextResult summarise(const Windows& windows, const TokenScores& scores,
                     const TokenScores* reference, uint64_t seed);
TaskResult summarise(const TaskSet& set, const TaskScores& scores, const TaskScores* reference);

// {"reference": {...}, "models": [{"path", "bytes", "bits_per_weight", "texts", "tasks"}]}
// (docs/eval-formats.md).
std::string to_json_text(const EvalResult& result);
Result<EvalResult> eval_result_from_json_text(std::string_view text, std::string_view source);
// A table for a terminal, 100 columns or less for two texts.
std::string to_table(const EvalResult& result);

}  // namespace spear
