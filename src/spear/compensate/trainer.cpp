#include "spear/compensate/trainer.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/hash.h"
#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/base/rng.h"
#include "spear/compensate/training_batches.h"
#include "spear/compensate/training_state.h"

namespace spear {

float LearningRates::of(ParameterKind kind) const {
  switch (kind) {
    case ParameterKind::kScale:
      return scale;
    case ParameterKind::kZero:
      return zero;
    case ParameterKind::kBias:
      return bias;
    case ParameterKind::kFactorA:
    case ParameterKind::kFactorB:
      return factors;
    case ParameterKind::kGateW1:
    case ParameterKind::kGateB1:
    case ParameterKind::kGateW2:
    case ParameterKind::kGateB2:
      return gate;
    case ParameterKind::kNorm:
      return norm;
  }
  return 0;
}

KindSet LearningRates::kinds() const {
  KindSet set = 0;
  for (int kind = 0; kind < kParameterKinds; ++kind)
    if (of(static_cast<ParameterKind>(kind)) != 0) set |= bit(static_cast<ParameterKind>(kind));
  return set;
}

LearningRates LearningRates::times(float factor) const {
  return {scale * factor,   zero * factor, bias * factor,
          factors * factor, gate * factor, norm * factor};
}

std::string to_json_text(const TrainerOptions& options) {
  const LearningRates& r = options.rates;
  const AdamWOptions& a = options.adamw;
  Json json = {{"steps", options.steps},
               {"batch", options.batch},
               {"micro_tokens", options.micro_tokens},
               {"temperature", options.temperature},
               {"rates",
                {{"scale", r.scale},
                 {"zero", r.zero},
                 {"bias", r.bias},
                 {"factors", r.factors},
                 {"gate", r.gate},
                 {"norm", r.norm}}},
               {"relative_factors", options.relative_factors},
               {"alpha", options.alpha},
               {"adamw",
                {{"beta1", a.beta1},
                 {"beta2", a.beta2},
                 {"epsilon", a.epsilon},
                 {"weight_decay", a.weight_decay},
                 {"clip_norm", a.clip_norm},
                 {"schedule", a.schedule == Schedule::kCosine ? "cosine" : "constant"},
                 {"warmup", a.warmup},
                 {"floor", a.floor}}},
               {"factor_bits", options.factor_bits},
               {"rounding_share", options.rounding_share},
               {"keep_best", options.keep_best},
               {"held_out_share", options.held_out_share},
               {"held_out_most", options.held_out_most},
               {"evaluate_every", options.evaluate_every},
               {"seed", options.seed}};
  return json.dump();
}

HeldOutSplit split_held_out(int64_t count, const TrainerOptions& options) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(options.seed, 0x68656c64);  // a stream of its own
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[rng.below(static_cast<uint32_t>(i))]);
  const auto share =
      static_cast<int64_t>(std::ceil(options.held_out_share * static_cast<double>(count)));
  const int64_t held_out =
      std::clamp<int64_t>(share, 1, std::max<int64_t>(1, options.held_out_most));
  HeldOutSplit split;
  split.held_out.assign(order.begin(), order.begin() + std::min(held_out, count));
  split.training.assign(order.begin() + std::min(held_out, count), order.end());
  std::sort(split.held_out.begin(), split.held_out.end());
  return split;
}

std::vector<int64_t> batch_of_step(std::span<const int64_t> training, int64_t step,
                                   const TrainerOptions& options) {
  const auto count = static_cast<int64_t>(training.size());
  expects(count > 0);
  std::vector<int64_t> batch;
  std::vector<int64_t> order;
  int64_t ordered_epoch = -1;
  for (int64_t i = 0; i < options.batch; ++i) {
    const int64_t draw = step * options.batch + i;
    const int64_t epoch = draw / count;
    if (epoch != ordered_epoch) {
      order.assign(training.begin(), training.end());
      Rng rng(options.seed, 0x65706f63 + static_cast<uint64_t>(epoch));
      for (size_t j = order.size(); j > 1; --j)
        std::swap(order[j - 1], order[rng.below(static_cast<uint32_t>(j))]);
      ordered_epoch = epoch;
    }
    batch.push_back(order[static_cast<size_t>(draw % count)]);
  }
  return batch;
}

namespace {

// The size of a rank row at the start, so that a step is a share of it.
double row_size(const float* row, int64_t count) {
  double square = 0;
  for (int64_t i = 0; i < count; ++i) square += static_cast<double>(row[i]) * row[i];
  return std::sqrt(square / static_cast<double>(count));
}

struct StepSizes {
  std::vector<float> rates, gains;
};

StepSizes step_sizes(const StudentModel& student, const TrainerOptions& options) {
  StepSizes sizes;
  sizes.rates.assign(student.start.size(), 0.0f);
  sizes.gains.assign(student.start.size(), 1.0f);
  for (const ParameterSpan& span : student.spans) {
    const float rate = options.rates.of(span.kind);
    const bool factor = (bit(span.kind) & kFactorKinds) != 0;
    for (int64_t r = 0; r < span.rows; ++r) {
      const int64_t begin = span.offset + r * span.columns;
      float gain = 1.0f;
      if (span.kind == ParameterKind::kNorm || (factor && options.relative_factors)) {
        const double size = row_size(student.start.data() + begin, span.columns);
        if (size > 0) gain = static_cast<float>(size);
      } else if (span.kind == ParameterKind::kFactorB) {
        gain = options.alpha;
      }
      std::fill_n(sizes.rates.begin() + begin, span.columns, rate);
      std::fill_n(sizes.gains.begin() + begin, span.columns, gain);
    }
  }
  return sizes;
}

// One run of train(): the state and what is needed to move it.
class Run {
 public:
  Run(const StudentModel& student, const TrainingData& data, ReversePass& pass,
      const TrainerOptions& options)
      : student_(student),
        data_(data),
        pass_(pass),
        options_(options),
        split_(split_held_out(data.tokens.count, options)),
        sizes_(step_sizes(student, options)),
        buffer_(data, options.micro_tokens, options.temperature),
        optimizer_(optimizer_options(), student.start.size()) {
    if (split_.training.empty())
      throw Failure(ErrorCode::kUsage,
                    fmt::format("training needs at least 2 sequences of {} tokens, found {}: give "
                                "more calibration text or samples",
                                data.tokens.length, data.tokens.count));
    state_.values = student.start;
  }

  [[nodiscard]] int64_t step() const { return optimizer_.state().step; }
  [[nodiscard]] const TrainingState& state() const { return state_; }

  void restore(TrainingState state) {
    optimizer_ = AdamW(optimizer_options(), std::move(state.optimizer));
    state_ = std::move(state);
  }
  TrainingState& snapshot() {
    state_.optimizer = optimizer_.state();
    return state_;
  }

  // One optimisation step on its batch.
  void advance() {
    const int64_t at = step();
    const bool rounding = static_cast<double>(at) >=
                          (1 - options_.rounding_share) * static_cast<double>(options_.steps);
    const std::vector<float> seen = rounding ? round_values() : state_.values;
    gradients_.assign(seen.size(), 0.0f);
    double loss = 0;
    buffer_.each(
        batch_of_step(split_.training, at, options_), [&](const StudentBatch& batch, double share) {
          loss += share *
                  pass_.loss_and_gradient(seen, batch, options_.rates.kinds(), share, gradients_);
        });
    if (!std::isfinite(loss))
      throw Failure(
          ErrorCode::kUsage,
          fmt::format("the loss is not finite at step {}: lower the learning rates", at + 1));
    optimizer_.step(state_.values, gradients_, sizes_.rates, sizes_.gains);
    keep_in_range(student_, state_.values);
    state_.smoothed = at == 0 ? loss : 0.9 * state_.smoothed + 0.1 * loss;
    LossPoint point;
    point.step = at + 1;
    point.loss = state_.smoothed;
    state_.curve.push_back(point);
  }

  // Held-out KL of what would be stored now; remembers the best.
  void measure() {
    std::vector<float> stored = round_values();
    const double kl =
        mean_kl(pass_, stored, data_, split_.held_out, options_.micro_tokens, options_.temperature);
    if (step() == 0) state_.held_out_before = kl;
    if (!state_.curve.empty()) state_.curve.back().held_out = kl;
    if (!state_.best_values.empty() && options_.keep_best && !(kl < state_.best)) return;
    state_.best = kl;
    state_.best_step = step();
    state_.best_values = std::move(stored);
  }

 private:
  [[nodiscard]] AdamWOptions optimizer_options() const {
    AdamWOptions options = options_.adamw;
    options.steps = options_.steps;
    return options;
  }
  [[nodiscard]] std::vector<float> round_values() const {
    return rounded(student_, state_.values,
                   {options_.factor_bits, options_.rates.kinds() | kFactorKinds | kGateKinds});
  }

  const StudentModel& student_;
  const TrainingData& data_;
  ReversePass& pass_;
  const TrainerOptions& options_;
  HeldOutSplit split_;
  StepSizes sizes_;
  BatchBuffer buffer_;
  AdamW optimizer_;
  TrainingState state_;
  std::vector<float> gradients_;
};

std::string run_key(const StudentModel& student, const TrainingData& data,
                    const TrainerOptions& options) {
  Sha256 digest;
  const auto add = [&](std::string_view text) {
    digest.update(std::as_bytes(std::span(text.data(), text.size())));
  };
  add(to_json_text(options));
  add(data.tokens.hash());
  digest.update(std::as_bytes(std::span(student.start)));
  for (int64_t index = 0; index < student.module_count(); ++index)
    digest.update(std::as_bytes(std::span(student.linear(index).codes)));
  return digest.hex();
}

std::string note_of(const TrainingState& state) {
  double held_out = state.held_out_before;
  for (const LossPoint& point : state.curve)
    if (point.held_out >= 0) held_out = point.held_out;
  return fmt::format("loss {:.4f} held-out {:.4f}", state.smoothed, held_out);
}

}  // namespace

double mean_kl(ReversePass& pass, std::span<const float> values, const TrainingData& data,
               std::span<const int64_t> sequences, int64_t micro_tokens, float temperature) {
  double kl = 0;
  BatchBuffer buffer(data, micro_tokens, temperature);
  buffer.each(sequences, [&](const StudentBatch& batch, double share) {
    kl += share * pass.loss(values, batch);
  });
  return kl;
}

TrainingResult train(const StudentModel& student, const TrainingData& data, ReversePass& pass,
                     const TrainerOptions& options, const std::filesystem::path& checkpoint,
                     Progress& progress) {
  expects(options.steps > 0 && options.batch > 0 && options.evaluate_every > 0 &&
          options.checkpoint_every > 0);
  expects(!options.relative_factors || options.alpha == 1.0f);
  Run run(student, data, pass, options);
  const std::string key = checkpoint.empty() ? std::string() : run_key(student, data, options);
  if (auto state = load_training_state(checkpoint, key, student.start.size()))
    run.restore(std::move(*state));
  const auto save = [&] {
    if (!checkpoint.empty()) save_training_state(checkpoint, key, run.snapshot());
  };
  progress.begin("training", options.steps);
  if (run.step() == 0 && run.state().best_values.empty()) run.measure();
  progress.advance(run.step(), note_of(run.state()));
  while (run.step() < options.steps) {
    if (progress.stop_requested()) {
      save();
      throw Failure(
          ErrorCode::kInterrupted,
          fmt::format("stopped after {} of {} training steps; the same command goes on from here",
                      run.step(), options.steps));
    }
    run.advance();
    if (run.step() % options.evaluate_every == 0 || run.step() == options.steps) run.measure();
    if (run.step() % options.checkpoint_every == 0 || run.step() == options.steps) save();
    progress.advance(1, note_of(run.state()));
  }
  progress.end();
  TrainingState& state = run.snapshot();
  TrainingResult result;
  result.values = std::move(state.best_values);
  result.held_out_before = state.held_out_before;
  result.held_out_after = state.best;
  result.best_step = state.best_step;
  result.curve = std::move(state.curve);
  return result;
}

namespace {

size_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  size_t kilobytes = 0;
  std::string unit;
  while (file >> name >> kilobytes >> unit)
    if (name == "MemAvailable:") return kilobytes * 1024;
  return size_t{4} << 30;
}

}  // namespace

ReversePassOptions choose_pass_options(const StudentModel& student, const TrainerOptions& options,
                                       int64_t length, Compute compute, size_t memory) {
  const int64_t tokens = std::max(length, std::min(options.micro_tokens, options.batch * length));
  const size_t usable = memory > 0 ? memory : available_memory() / 4 * 3;
  ReversePassOptions best;
  best.compute = compute;
  best.keep_activations = true;
  if (reverse_pass_bytes(student, tokens, best) > usable) best.keep_activations = false;
  if (reverse_pass_bytes(student, tokens, best) > usable) best.keep_matrices = false;
  const size_t needed = reverse_pass_bytes(student, tokens, best);
  const auto gigabytes = [](size_t bytes) { return static_cast<double>(bytes) / 1e9; };
  log(needed > usable ? LogLevel::kWarning : LogLevel::kInfo,
      fmt::format("training will hold about {:.1f} GB beside the model ({}); {:.1f} GB are free",
                  gigabytes(needed),
                  best.keep_activations ? "activations kept" : "activations recomputed by layer",
                  gigabytes(usable)));
  return best;
}

}  // namespace spear
