#include "spear/engine/measure_costs.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "spear/base/check.h"

namespace spear {
namespace {

constexpr int kLeastRounds = 1, kMostRounds = 30;

// Steps of made-up shapes over the model's pages.
class Stopwatch {
 public:
  Stopwatch(StepModel& model, std::function<double()> clock)
      : model_(model), clock_(std::move(clock)) {
    const int64_t most = std::min<int64_t>(model.pages(), 1 << 20);
    pages_.resize(static_cast<size_t>(most));
    std::iota(pages_.begin(), pages_.end(), 0);
  }

  // `decode` answers with `context` tokens each, and `prefill` rows of a prompt after `before`.
  double time(int64_t decode, int64_t context, int64_t prefill, int64_t before, int32_t level) {
    tokens_.assign(static_cast<size_t>(decode + prefill), 0);
    for (size_t i = 0; i < tokens_.size(); ++i)
      tokens_[i] = static_cast<int32_t>((i * 7919 + 17) % static_cast<size_t>(model_.vocab_size()));
    sequences_.clear();
    logit_rows_.clear();
    const int64_t own = (context + model_.page_size()) / model_.page_size();
    for (int64_t i = 0; i < decode; ++i) {
      const int64_t first = i * own % std::max<int64_t>(std::ssize(pages_) - own, 1);
      sequences_.push_back({i, 1, context, pages_.data() + first});
      logit_rows_.push_back(static_cast<int32_t>(i));
    }
    if (prefill > 0) sequences_.push_back({decode, prefill, before, pages_.data()});
    const double start = clock_();
    model_.run(
        {.tokens = tokens_, .sequences = sequences_, .logit_rows = logit_rows_, .level = level});
    return clock_() - start;
  }

 private:
  StepModel& model_;
  std::function<double()> clock_;
  std::vector<int32_t> pages_, tokens_, logit_rows_;
  std::vector<AttentionSequence> sequences_;
};

// A shape and its best time so far: what disturbs a step only ever adds.
struct Probe {
  int64_t decode = 0, context = 0, prefill = 0, before = 0;
  int32_t level = 0;
  double best = std::numeric_limits<double>::infinity();
};

struct Probes {
  std::vector<Probe> rows, bare_rows;  // prompts of one length; the same without compensators
  Probe short_decode, long_decode, single, deep_prompt, shallow_prompt;

  template <class F>
  void each(F f) {
    for (size_t i = 0; i < rows.size(); ++i) {
      f(rows[i]);
      if (!bare_rows.empty()) f(bare_rows[i]);
    }
    for (Probe* p : {&short_decode, &long_decode, &deep_prompt, &shallow_prompt}) f(*p);
  }
};

std::vector<int64_t> knots(int64_t most) {
  std::vector<int64_t> rows;
  for (const int64_t r : {1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512})
    if (r < most) rows.push_back(r);
  rows.push_back(most);
  return rows;
}

Probes make_probes(const StepModel& model, const MeasureOptions& o) {
  const int64_t held = std::min(model.pages() * model.page_size(), model.max_context());
  const int64_t most = std::min(o.token_budget, held);
  if (most < 4)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("KV cache: {} tokens are too few to measure steps with", held));
  Probes probes;
  for (const int64_t rows : knots(most)) {
    probes.rows.push_back({.prefill = rows});
    if (model.levels() > 1)
      probes.bare_rows.push_back({.prefill = rows, .level = model.levels() - 1});
  }
  const int64_t streams = std::max<int64_t>(std::min<int64_t>(o.max_running, 8), 1);
  const int64_t deep = std::max<int64_t>(std::min<int64_t>(held - 1, 1024), 1);
  const int64_t chunk = std::min<int64_t>(64, most);
  probes.short_decode = {.decode = streams, .context = std::min<int64_t>(deep, 16)};
  probes.long_decode = {.decode = streams, .context = deep};
  probes.shallow_prompt = {.prefill = chunk};
  probes.deep_prompt = {.prefill = chunk, .before = std::max<int64_t>(deep - chunk, 0)};
  return probes;
}

double slope(double high, double low, int64_t steps) {
  return steps > 0 ? std::max(high - low, 0.0) / static_cast<double>(steps) : 0;
}

StepCostTable table_of(const Probes& probes, const MeasureOptions& o, int32_t levels) {
  StepCostTable t;
  t.prefill_pair = slope(probes.deep_prompt.best, probes.shallow_prompt.best,
                         probes.deep_prompt.prefill * (probes.deep_prompt.before));
  const Probe &low = probes.short_decode, &high = probes.long_decode;
  t.context_token = slope(high.best, low.best, high.decode * (high.context - low.context));
  double rows_before = 0, bare_before = 0;
  for (size_t i = 0; i < probes.rows.size(); ++i) {
    const int64_t rows = probes.rows[i].prefill;
    const double pairs = t.prefill_pair * static_cast<double>(rows * (rows + 1) / 2);
    // More rows never take less time: what says so is noise.
    const double all = rows_before = std::max(probes.rows[i].best, rows_before);
    const double bare = probes.bare_rows.empty() ? all : std::min(probes.bare_rows[i].best, all);
    bare_before = std::max(bare, bare_before);
    t.rows.push_back(rows);
    t.base.push_back(std::max(bare_before - pairs, bare_before / 2));
    t.compensators.push_back(std::max(all - bare_before, 0.0));
  }
  // A decode row costs what the same row of a prompt does, and its logits.
  t.level_shares.assign(static_cast<size_t>(levels), 1.0);
  const double expected =
      t.seconds({.decode_rows = low.decode, .context_tokens = low.decode * (low.context + 1)});
  t.decode_row = std::max(low.best - expected, 0.0) / static_cast<double>(low.decode);
  if (!o.level_shares.empty()) t.level_shares = o.level_shares;
  return t;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

StepCostTable measure_step_costs(StepModel& model, const MeasureOptions& options) {
  expects(options.level_shares.empty() || std::ssize(options.level_shares) == model.levels());
  Probes probes = make_probes(model, options);
  const auto clock = options.clock ? options.clock : steady_seconds;
  Stopwatch watch(model, clock);
  const double start = clock();
  const auto round = [&] {
    probes.each([&](Probe& p) {
      p.best = std::min(p.best, watch.time(p.decode, p.context, p.prefill, p.before, p.level));
    });
  };
  // Buffers grow, weights are read for the first time.
  const Probe& largest = probes.rows.back();
  watch.time(0, 0, largest.prefill, 0, 0);
  watch.time(probes.long_decode.decode, probes.long_decode.context, 0, 0, 0);
  for (int r = 0; r < kMostRounds && (r < kLeastRounds || clock() - start < options.seconds); ++r)
    round();
  return table_of(probes, options, model.levels());
}

}  // namespace spear
