#include "spear/eval/text_scoring.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include <fmt/core.h>

#include "spear/base/check.h"
#include "spear/eval/row_scorer.h"
#include "spear/eval/window_runner.h"

namespace spear {
namespace {

constexpr int64_t kShardTokens = 8192;  // what an interruption may lose
constexpr int kFormatVersion = 1;       // of stored pieces; raise it when scores would differ

int64_t windows_per_shard(const Windows& windows) {
  return std::max<int64_t>(1, kShardTokens / windows.protocol.context);
}

int64_t shard_count(const Windows& windows) {
  const int64_t each = windows_per_shard(windows);
  return (windows.count + each - 1) / each;
}

WindowRange shard_range(const Windows& windows, int64_t shard) {
  const int64_t first = shard * windows_per_shard(windows);
  return {first, std::min(windows_per_shard(windows), windows.count - first)};
}

const char* name_of(Compute compute) {
  return compute == Compute::kF32 ? "f32" : "bf16";
}

std::string key_of(std::string_view kind, const ScoredModel& model, const ScoredModel* reference,
                   const Windows& windows, Decoder& decoder) {
  std::string key =
      fmt::format("spear {} v{}\nmodel {} {}\nbackend {}\ntext {} {} windows {}\n", kind,
                  kFormatVersion, model.identity, name_of(model.compute), decoder.backend().name(),
                  windows.name, windows.content_hash, windows.count);
  if (decoder.program() != nullptr) key += fmt::format("path {}\n", decoder.describe());
  if (model.kv != DType::kF32) key += fmt::format("kv {}\n", kv_type_name(model.kv));
  if (reference != nullptr)
    key += fmt::format("reference {} {}\n", reference->identity, name_of(reference->compute));
  return key;
}

// The scores of some windows inside the scores of all.
struct ScoreSpans {
  std::span<float> nll;
  std::span<int32_t> best;
  std::span<float> kl;  // empty without a reference

  [[nodiscard]] size_t bytes() const {
    return nll.size_bytes() + best.size_bytes() + kl.size_bytes();
  }
};

ScoreSpans spans_of(TokenScores& scores, const Windows& windows, WindowRange range) {
  const auto each = static_cast<size_t>(windows.protocol.predictions());
  const size_t begin = static_cast<size_t>(range.first) * each;
  const size_t count = static_cast<size_t>(range.count) * each;
  return {std::span(scores.nll).subspan(begin, count), std::span(scores.best).subspan(begin, count),
          scores.kl.empty() ? std::span<float>{} : std::span(scores.kl).subspan(begin, count)};
}

TokenScores empty_scores(const Windows& windows, bool with_kl) {
  const auto count = static_cast<size_t>(windows.count * windows.protocol.predictions());
  return {std::vector<float>(count), std::vector<int32_t>(count),
          std::vector<float>(with_kl ? count : 0)};
}

void check_finite(const ScoredModel& model, const Windows& windows, const ScoreSpans& scores) {
  const auto finite = [](float value) { return std::isfinite(value); };
  if (std::all_of(scores.nll.begin(), scores.nll.end(), finite) &&
      std::all_of(scores.kl.begin(), scores.kl.end(), finite))
    return;
  throw Failure(
      ErrorCode::kBadFile,
      fmt::format("{}: predictions on {} are not finite numbers; the model's weights are damaged",
                  model.label, windows.name));
}

// Stored type of hidden states: what the head would round them to.
void store_hidden(std::span<const float> values, DType type, PieceWriter& piece) {
  if (type == DType::kF32) return piece.add(values);
  std::vector<uint16_t> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(), bf16_from_float);
  piece.add(std::span<const uint16_t>(rounded));
}

std::filesystem::path folder_for(const ScoredModel& model, const ScoringOptions& options) {
  return model.identity.empty() ? std::filesystem::path() : options.cache_folder;
}

// One model over all windows, pieces that are stored already left out. `score` fills the scores of
// a window from its hidden states.
using WindowScore = std::function<void(int64_t window, const float* hidden, const ScoreSpans& out)>;
TokenScores score_windows(Decoder& decoder, const ScoredModel& model, const Windows& windows,
                          ShardStore& store, const ScoringOptions& options, bool with_kl,
                          Progress& progress, const WindowScore& score) {
  TokenScores scores = empty_scores(windows, with_kl);
  std::optional<WindowRunner> runner;
  progress.begin(fmt::format("{}, {}", windows.name, model.label), windows.count);
  for (int64_t shard = 0; shard < shard_count(windows); ++shard) {
    const WindowRange range = shard_range(windows, shard);
    const ScoreSpans spans = spans_of(scores, windows, range);
    if (const auto stored = store.get(shard, spans.bytes())) {
      PieceReader reader(*stored);
      reader.take(spans.nll);
      reader.take(spans.best);
      reader.take(spans.kl);
      progress.advance(range.count);
      continue;
    }
    if (!runner) runner.emplace(decoder, windows, options.batch_rows, model.kv);
    runner->run(range, progress, [&](int64_t window, const float* hidden) {
      score(window, hidden, spans_of(scores, windows, {window, 1}));
    });
    check_finite(model, windows, spans);
    PieceWriter piece;
    piece.add(std::span<const float>(spans.nll));
    piece.add(std::span<const int32_t>(spans.best));
    piece.add(std::span<const float>(spans.kl));
    store.put(shard, std::move(piece.bytes));
  }
  progress.end();
  return scores;
}

}  // namespace

ReferenceStates::ReferenceStates(Decoder& decoder, ScoredModel model, const Windows& windows,
                                 const ScoringOptions& options)
    : decoder_(&decoder),
      model_(std::move(model)),
      windows_(&windows),
      options_(options),
      stored_(model_.compute == Compute::kF32 ? DType::kF32 : DType::kBF16),
      store_(folder_for(model_, options),
             key_of("reference states", model_, nullptr, windows, decoder)),
      scores_(empty_scores(windows, false)) {}

size_t ReferenceStates::state_bytes(int64_t windows) const {
  return static_cast<size_t>(windows * windows_->protocol.predictions() *
                             decoder_->config().hidden_size) *
         size_of(stored_);
}

bool ReferenceStates::load_shard(int64_t shard) {
  if (loaded_shard_ == shard) return true;
  const WindowRange range = shard_range(*windows_, shard);
  const ScoreSpans spans = spans_of(scores_, *windows_, range);
  auto stored = store_.get(shard, state_bytes(range.count) + spans.bytes());
  if (!stored) return false;
  loaded_ = std::move(*stored);
  loaded_shard_ = shard;
  PieceReader reader(std::span<const std::byte>(loaded_).subspan(state_bytes(range.count)));
  reader.take(spans.nll);
  reader.take(spans.best);
  return true;
}

void ReferenceStates::compute(Progress& progress) {
  progress.begin(fmt::format("{}, {}", windows_->name, model_.label), windows_->count);
  for (int64_t shard = 0; shard < shard_count(*windows_); ++shard) {
    stop_if_asked(progress);
    if (load_shard(shard))
      progress.advance(shard_range(*windows_, shard).count);
    else
      compute_shard(shard, progress);
  }
  runner_.reset();
  scorer_.reset();
  progress.end();
}

void ReferenceStates::compute_shard(int64_t shard, Progress& progress) {
  const WindowRange range = shard_range(*windows_, shard);
  if (!runner_) runner_.emplace(*decoder_, *windows_, options_.batch_rows);
  if (!scorer_) scorer_.emplace(*decoder_);
  PieceWriter piece;
  std::vector<float> host(
      static_cast<size_t>(windows_->protocol.predictions() * decoder_->config().hidden_size));
  runner_->run(range, progress, [&](int64_t window, const float* hidden) {
    const ScoreSpans out = spans_of(scores_, *windows_, {window, 1});
    scorer_->score(hidden, windows_->targets(window), {}, {out.nll, out.best, {}});
    decoder_->backend().download(host.data(), hidden, host.size() * sizeof(float));
    store_hidden(host, stored_, piece);
  });
  const ScoreSpans spans = spans_of(scores_, *windows_, range);
  check_finite(model_, *windows_, spans);
  piece.add(std::span<const float>(spans.nll));
  piece.add(std::span<const int32_t>(spans.best));
  store_.put(shard, std::move(piece.bytes));
}

void ReferenceStates::hidden(int64_t window, std::vector<float>& out) {
  const int64_t shard = window / windows_per_shard(*windows_);
  if (!load_shard(shard)) {  // removed from the disk meanwhile
    SilentProgress silent;
    compute_shard(shard, silent);
    if (!load_shard(shard))
      throw Failure(ErrorCode::kIo, fmt::format("{}: a piece just written cannot be read back",
                                                store_.folder().string()));
  }
  const size_t begin = state_bytes(window - shard_range(*windows_, shard).first);
  const auto raw = std::span<const std::byte>(loaded_).subspan(begin, state_bytes(1));
  out.resize(raw.size() / size_of(stored_));
  if (stored_ == DType::kF32) {
    std::memcpy(out.data(), raw.data(), raw.size());
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, raw.data() + i * sizeof bits, sizeof bits);
    out[i] = float_from_bf16(bits);
  }
}

TokenScores score_against(Decoder& decoder, const ScoredModel& model, ReferenceStates& reference,
                          const Windows& windows, const ScoringOptions& options,
                          Progress& progress) {
  expects(reference.windows_ == &windows);
  ShardStore store(
      reference.model_.identity.empty() ? std::filesystem::path() : folder_for(model, options),
      key_of("scores", model, &reference.model_, windows, decoder));
  RowScorer scorer(decoder);
  Backend& backend = decoder.backend();
  std::vector<float> host;
  DeviceBuffer beside;
  return score_windows(decoder, model, windows, store, options, true, progress,
                       [&](int64_t window, const float* hidden, const ScoreSpans& out) {
                         reference.hidden(window, host);
                         const size_t bytes = host.size() * sizeof(float);
                         if (beside.bytes() < bytes) beside = backend.allocate(bytes);
                         backend.upload(beside.as<float>(), host.data(), bytes);
                         scorer.score(hidden, windows.targets(window),
                                      {reference.decoder_, beside.as<float>()},
                                      {out.nll, out.best, out.kl});
                       });
}

TokenScores score_alone(Decoder& decoder, const ScoredModel& model, const Windows& windows,
                        const ScoringOptions& options, Progress& progress) {
  ShardStore store(folder_for(model, options), key_of("scores", model, nullptr, windows, decoder));
  RowScorer scorer(decoder);
  return score_windows(decoder, model, windows, store, options, false, progress,
                       [&](int64_t window, const float* hidden, const ScoreSpans& out) {
                         scorer.score(hidden, windows.targets(window), {}, {out.nll, out.best, {}});
                       });
}

}  // namespace spear
