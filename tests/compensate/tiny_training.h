// A tiny quantized student with its teacher, for tests of training.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"
#include "spear/compensate/trainer.h"
#include "spear/model/decoder.h"

#include "support/tiny_model.h"

namespace spear::test {

inline TokenSequences random_sequences(int64_t count, int64_t length, int64_t vocab) {
  TokenSequences tokens;
  tokens.count = count;
  tokens.length = length;
  Rng rng(5);
  for (int64_t i = 0; i < count * length; ++i)
    tokens.ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint32_t>(vocab))));
  return tokens;
}

// Small random compensators for every module: they stand for a closed form.
inline CompensatorList random_compensators(const ModelConfig& config, int32_t rank,
                                           int32_t hidden) {
  CompensatorList list;
  Rng rng(9);
  const auto fill = [&](std::vector<float>& values, int64_t count, double scale) {
    for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(scale * rng.normal()));
  };
  for (int64_t index = 0; index < config.num_hidden_layers * kModulesPerLayer; ++index) {
    const auto m = static_cast<Module>(index % kModulesPerLayer);
    CompensatorValues ec;
    ec.rank = rank;
    ec.n = static_cast<int32_t>(out_features(config, m));
    ec.k = static_cast<int32_t>(in_features(config, m));
    ec.gate_hidden = hidden;
    fill(ec.a, int64_t{rank} * ec.k, 0.1);
    fill(ec.b, int64_t{rank} * ec.n, 0.05);
    if (hidden > 0) {
      fill(ec.w1, int64_t{rank} * hidden, 0.5);
      fill(ec.b1, hidden, 0.1);
      fill(ec.w2, int64_t{rank} * hidden, 0.1);
      fill(ec.b2, rank, 0.1);
    }
    list.push_back(ec);
  }
  return list;
}

struct TinyTraining {
  explicit TinyTraining(const std::filesystem::path& cache, int32_t bits = 3, int32_t hidden = 4,
                        int threads = 2)
      : pool(threads),
        backend(value_or_throw(make_cpu_backend(pool))),
        dense(tiny_model()),
        model(tiny_quantized(dense, bits)),
        student(
            make_student(model, {.row_bias = true}, random_compensators(model.config, 2, hidden))),
        tokens(random_sequences(20, 12, model.config.vocab_size)) {
    Decoder decoder(*backend, dense, Compute::kF32);
    SilentProgress silent;
    teacher = TeacherStates::gather(decoder, dense.content_hash, tokens, Compute::kF32, cache, pool,
                                    silent);
  }
  std::unique_ptr<ReversePass> pass(Compute compute = Compute::kF32) {
    return make_reverse_pass(student, dense.head_weight().view(), *backend, pool,
                             {compute, true, true});
  }
  [[nodiscard]] TrainingData data() const { return {tokens, teacher, dense.head_weight().view()}; }
  static TrainerOptions options() {
    TrainerOptions o;
    o.steps = 12;
    o.batch = 4;
    o.micro_tokens = 24;
    o.rates = {.scale = 3e-3f, .zero = 1e-2f, .bias = 3e-3f, .factors = 2e-2f, .gate = 3e-3f};
    o.adamw.warmup = 2;
    o.held_out_share = 0.2;
    o.evaluate_every = 3;
    o.checkpoint_every = 5;
    return o;
  }

  ThreadPool pool;
  std::unique_ptr<Backend> backend;
  DenseModel dense;
  QuantizedModel model;
  StudentModel student;
  TokenSequences tokens;
  TeacherStates teacher;
};

}  // namespace spear::test
