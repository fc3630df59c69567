#include "spear/eval/task_scoring.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "spear/base/hash.h"
#include "spear/eval/shard_store.h"
#include "spear/eval/window_runner.h"

namespace spear {
namespace {

constexpr int64_t kQuestionsPerPiece = 512;  // what an interruption may lose

Result<ScoredTokens> encode_choice(const Choice& choice, const TextEncoder& encoder) {
  std::string_view context = choice.context;
  std::string continuation = choice.continuation;
  const size_t kept = context.find_last_not_of(" \t\r\n");
  const size_t length = kept == std::string_view::npos ? 0 : kept + 1;
  continuation.insert(0, context.substr(length));
  context = context.substr(0, length);

  ScoredTokens scored;
  if (encoder.bos >= 0) scored.tokens.push_back(encoder.bos);
  std::vector<int32_t> before = context.empty() ? std::vector<int32_t>() : encoder.encode(context);
  if (before.empty() && scored.tokens.empty()) {
    if (encoder.prefix < 0)
      return fail(ErrorCode::kUnsupported,
                  "the context is empty and the model has no token that begins a text, so the "
                  "first token of the "
                  "answer cannot be scored");
    scored.tokens.push_back(encoder.prefix);
  }
  const auto prefix = static_cast<int64_t>(scored.tokens.size());
  const auto whole = encoder.encode(fmt::format("{}{}", context, continuation));
  if (whole.empty()) return fail(ErrorCode::kBadFile, "the answer has no token");
  scored.tokens.insert(scored.tokens.end(), whole.begin(), whole.end());
  // A context that melts into the continuation leaves at least the last token to score.
  scored.scored_from =
      std::max<int64_t>(1, prefix + std::min(static_cast<int64_t>(before.size()),
                                             static_cast<int64_t>(whole.size()) - 1));
  if (scored.tokens.size() < 2) return fail(ErrorCode::kBadFile, "the answer has nothing to score");
  return scored;
}

Result<void> check_tokens(const ScoredTokens& scored, const ModelConfig& config) {
  if (static_cast<int64_t>(scored.tokens.size()) > config.max_position_embeddings)
    return fail(ErrorCode::kUsage,
                fmt::format("{} tokens with the answer, but the model was made for at most {}",
                            scored.tokens.size(), config.max_position_embeddings));
  for (const int32_t token : scored.tokens)
    if (token < 0 || token >= config.vocab_size)
      return fail(
          ErrorCode::kBadFile,
          fmt::format(
              "the tokenizer gives token {}, but the model knows {}; the tokenizer belongs to "
              "another model",
              token, config.vocab_size));
  return {};
}

std::string hash_of(const EncodedTask& task) {
  Sha256 hash;
  for (const auto& group : task.groups)
    for (const ScoredTokens& member : group) {
      const int64_t sizes[] = {static_cast<int64_t>(group.size()),
                               static_cast<int64_t>(member.tokens.size()), member.scored_from};
      hash.update(std::as_bytes(std::span(sizes)));
      hash.update(std::as_bytes(std::span(member.tokens)));
    }
  return hash.hex();
}

std::string key_of(const ScoredModel& model, const EncodedTask& task, Decoder& decoder) {
  std::string key = fmt::format("spear task v1\nmodel {} {}\nbackend {}\ntask {} {}\n",
                                model.identity, model.compute == Compute::kF32 ? "f32" : "bf16",
                                decoder.backend().name(), task.set->name, task.content_hash);
  if (decoder.program() != nullptr) key += fmt::format("path {}\n", decoder.describe());
  if (model.kv != DType::kF32) key += fmt::format("kv {}\n", kv_type_name(model.kv));
  return key;
}

struct StoredScore {
  double log_likelihood = 0;
  int64_t greedy = 0;
};

std::vector<std::byte> to_piece(std::span<const std::vector<ContinuationScore>> scores) {
  std::vector<StoredScore> flat;
  for (const auto& question : scores)
    for (const ContinuationScore& score : question)
      flat.push_back({score.log_likelihood, score.greedy ? 1 : 0});
  PieceWriter piece;
  piece.add(std::span<const StoredScore>(flat));
  return std::move(piece.bytes);
}

size_t choice_count(std::span<const ContinuationScorer::Group> groups) {
  size_t count = 0;
  for (const auto& group : groups) count += group.size();
  return count;
}

TaskScores from_piece(std::span<const std::byte> bytes,
                      std::span<const ContinuationScorer::Group> groups) {
  std::vector<StoredScore> flat(choice_count(groups));
  PieceReader(bytes).take(std::span(flat));
  TaskScores scores;
  size_t next = 0;
  for (const auto& group : groups) {
    auto& question = scores.emplace_back();
    for (size_t i = 0; i < group.size(); ++i, ++next)
      question.push_back({flat[next].log_likelihood, flat[next].greedy != 0});
  }
  return scores;
}

void check_finite(const ScoredModel& model, const EncodedTask& task, const TaskScores& scores) {
  for (const auto& question : scores)
    for (const ContinuationScore& score : question)
      if (!std::isfinite(score.log_likelihood))
        throw Failure(
            ErrorCode::kBadFile,
            fmt::format(
                "{}: predictions on {} are not finite numbers; the model's weights are damaged",
                model.label, task.set->name));
}

}  // namespace

Result<EncodedTask> encode_task(const TaskSet& set, const TextEncoder& encoder,
                                const ModelConfig& config) {
  EncodedTask task{.set = &set, .groups = {}, .content_hash = {}};
  for (const Question& question : set.questions) {
    const auto place = [&](const Error& error) {
      return fail(error.code,
                  fmt::format("{} line {}: {}", set.source, question.line, error.message));
    };
    auto& group = task.groups.emplace_back();
    for (const Choice& choice : question.choices) {
      auto scored = encode_choice(choice, encoder);
      if (!scored) return place(scored.error());
      if (const auto checked = check_tokens(*scored, config); !checked)
        return place(checked.error());
      group.push_back(std::move(*scored));
    }
  }
  task.content_hash = hash_of(task);
  return task;
}

TaskScores score_task(Decoder& decoder, const ScoredModel& model, const EncodedTask& task,
                      const ScoringOptions& options, Progress& progress) {
  ShardStore store(model.identity.empty() ? std::filesystem::path() : options.cache_folder,
                   key_of(model, task, decoder));
  ContinuationScorer scorer(decoder, 2 * options.batch_rows, model.kv);
  TaskScores all;
  const auto total = static_cast<int64_t>(task.groups.size());
  progress.begin(fmt::format("{}, {}", task.set->name, model.label), total);
  for (int64_t begin = 0; begin < total; begin += kQuestionsPerPiece) {
    const auto count = static_cast<size_t>(std::min(kQuestionsPerPiece, total - begin));
    const auto groups = std::span(task.groups).subspan(static_cast<size_t>(begin), count);
    const int64_t shard = begin / kQuestionsPerPiece;
    TaskScores part;
    if (const auto stored = store.get(shard, choice_count(groups) * sizeof(StoredScore))) {
      stop_if_asked(progress);
      part = from_piece(*stored, groups);
      progress.advance(static_cast<int64_t>(count));
    } else {
      part = scorer.score(groups, progress);
      check_finite(model, task, part);
      store.put(shard, to_piece(part));
    }
    std::move(part.begin(), part.end(), std::back_inserter(all));
  }
  progress.end();
  return all;
}

int32_t chosen_answer(const Question& question, const std::vector<ContinuationScore>& scores,
                      bool normalised) {
  int32_t best = 0;
  double best_value = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double length =
        normalised ? static_cast<double>(std::max<size_t>(1, question.choices[i].bytes)) : 1.0;
    const double value = scores[i].log_likelihood / length;
    if (i > 0 && value <= best_value) continue;
    best = static_cast<int32_t>(i);
    best_value = value;
  }
  return best;
}

}  // namespace spear
