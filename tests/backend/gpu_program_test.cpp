// The decoder compiled for a GPU beside the same backend running one operation at a time: tiny
// models with compensators, gates, biases, norms of heads and a rotation; single rows, batches,
// prefill across pages and mixed batches. Skipped, with the reason, where there is no GPU.
#include <cmath>
#include <memory>
#include <optional>

#include <gtest/gtest.h>

#include "spear/backend/backend.h"
#include "spear/base/rng.h"
#include "spear/model/decoder.h"

#include "support/tiny_model.h"

namespace spear {
namespace {

using Values = std::vector<float>;

Values random_values(int64_t count, double scale, Rng& rng) {
  Values out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<float>(scale * rng.normal()));
  return out;
}

// Compensators on two of three modules, ranks 1 to 5, a gate on every other one.
void add_compensators(QuantizedModel& model) {
  Rng rng(21);
  int32_t index = 0;
  for (QuantizedLayer& layer : model.layers)
    for (const Module module : kModules) {
      QuantizedLinear& linear = layer.linear(module);
      if (++index % 3 == 0) continue;
      CompensatorValues ec;
      ec.rank = 1 + index % 5;
      ec.n = linear.weight.n;
      ec.k = linear.weight.k;
      ec.gate_hidden = index % 2 == 0 ? 7 : 0;
      ec.a = random_values(ec.rank * ec.k, 1.0 / std::sqrt(ec.k), rng);
      ec.b = random_values(ec.rank * ec.n, 0.3, rng);
      if (ec.gate_hidden > 0) {
        ec.w1 = random_values(ec.gate_hidden * ec.rank, 0.7, rng);
        ec.b1 = random_values(ec.gate_hidden, 0.3, rng);
        ec.w2 = random_values(ec.gate_hidden * ec.rank, 0.7, rng);
        ec.b2 = random_values(ec.rank, 0.3, rng);
      }
      linear.compensator = pack(ec, 8);
    }
}

void add_rotation(QuantizedModel& model) {
  Rng rng(22);
  ResidualRotation rotation;
  rotation.p = 3;
  rotation.h = model.config.hidden_size / 3;
  for (int64_t i = 0; i < model.config.hidden_size; ++i) {
    rotation.signs_in.push_back(rng.next() % 2 == 0 ? 1.0f : -1.0f);
    rotation.signs_out.push_back(rng.next() % 2 == 0 ? 1.0f : -1.0f);
  }
  rotation.factor = {0, 1, 0, 0, 0, 1, 1, 0, 0};
  model.rotation = rotation;
}

struct Mix {
  std::vector<int64_t> context, rows;
};

struct Outputs {
  Values hidden, logits;
};

std::vector<int32_t> tokens_of(int64_t count, int64_t vocab, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(rng.next() % static_cast<uint64_t>(vocab)));
  return tokens;
}

Outputs run(Decoder& decoder, const Mix& mix) {
  Backend& backend = decoder.backend();
  const ModelConfig& config = decoder.config();
  const auto count = static_cast<int64_t>(mix.rows.size());
  KvCache cache(backend, config, count, 192, true);
  const auto forward = [&](const std::vector<int32_t>& tokens,
                           const std::vector<AttentionSequence>& sequences) {
    const auto m = static_cast<int64_t>(tokens.size());
    const DeviceBuffer hidden =
        backend.allocate(static_cast<size_t>(m * config.hidden_size) * sizeof(float));
    const DeviceBuffer logits =
        backend.allocate(static_cast<size_t>(m * config.vocab_size) * sizeof(float));
    decoder.forward({tokens, sequences}, cache, hidden.as<float>());
    decoder.logits(hidden.as<float>(), m, logits.as<float>());
    Outputs out{Values(static_cast<size_t>(m * config.hidden_size)),
                Values(static_cast<size_t>(m * config.vocab_size))};
    backend.download(out.hidden.data(), hidden.as<float>(), hidden.bytes());
    backend.download(out.logits.data(), logits.as<float>(), logits.bytes());
    return out;
  };
  std::vector<int32_t> tokens;
  std::vector<AttentionSequence> sequences;
  for (int64_t s = 0; s < count; ++s) {
    const auto at = static_cast<size_t>(s);
    if (mix.context[at] > 0) {
      const AttentionSequence first = cache.append(s, 0, mix.context[at]);
      forward(tokens_of(mix.context[at], config.vocab_size, 100 + at), {first});
    }
    sequences.push_back(cache.append(s, static_cast<int64_t>(tokens.size()), mix.rows[at]));
    const auto own = tokens_of(mix.rows[at], config.vocab_size, 200 + at);
    tokens.insert(tokens.end(), own.begin(), own.end());
  }
  return forward(tokens, sequences);
}

double distance(const Values& a, const Values& b) {
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

class GpuProgramTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Backend>> made = make_gpu_backend(0, "cuda.fused");
    if (!made) GTEST_SKIP() << made.error().message;
    gpu_ = std::move(*made);
  }
  std::unique_ptr<Backend> gpu_;
};

const Mix kMixes[] = {{{0}, {1}},         {{5}, {1}},  {{0}, {70}}, {{3, 0, 66}, {1, 1, 1}},
                      {{0, 66}, {40, 1}}, {{130}, {9}}};

TEST_F(GpuProgramTest, AgreesWithOneOperationAtATime) {
  const test::TinyShape base{.hidden_size = 192,
                             .intermediate_size = 200,
                             .head_dim = 64,
                             .vocab_size = 70,
                             .max_position_embeddings = 256};
  for (const bool tied : {true, false})
    for (const bool wide : {false, true}) {
      test::TinyShape shape = base;
      shape.tied = tied;
      shape.attention_bias = !tied;
      shape.qk_norm = wide;
      if (wide) shape.head_dim = 128;
      QuantizedModel model = test::tiny_quantized(test::tiny_model(shape), 4);
      add_compensators(model);
      if (tied) add_rotation(model);
      Decoder plain(*gpu_, model, Compute::kF32);
      Decoder fused(*gpu_, model, Compute::kF32, DecoderPath::kFused);
      ASSERT_NE(fused.program(), nullptr) << fused.describe();
      EXPECT_GT(fused.program()->step_bytes(), 0u);
      for (const Mix& mix : kMixes) {
        const Outputs want = run(plain, mix);
        const Outputs found = run(fused, mix);
        // F16 activations through two layers of sums.
        EXPECT_LT(distance(found.hidden, want.hidden), 5e-3) << tied << wide << mix.rows[0];
        EXPECT_LT(distance(found.logits, want.logits), 5e-3) << tied << wide << mix.rows[0];
      }
    }
}

// The same batch three times: the second and third replay the first one's graph.
TEST_F(GpuProgramTest, ReplaysOfAStepAreTheSame) {
  const test::TinyShape shape{
      .hidden_size = 192, .intermediate_size = 200, .head_dim = 64, .vocab_size = 70};
  QuantizedModel model = test::tiny_quantized(test::tiny_model(shape), 4);
  add_compensators(model);
  Decoder fused(*gpu_, model, Compute::kF32, DecoderPath::kFused);
  ASSERT_NE(fused.program(), nullptr) << fused.describe();
  KvCache cache(*gpu_, model.config, 2, 64, true);
  const std::span<const KvLayerView> layers = cache.layers();
  const std::vector<int32_t> tokens = {3, 9};
  const std::vector<int32_t> wanted = {1};
  const DeviceBuffer logits = gpu_->allocate(70 * sizeof(float));
  const std::vector<AttentionSequence> sequences = {cache.append(0, 0, 1), cache.append(1, 1, 1)};
  Values first;
  for (int i = 0; i < 3; ++i) {
    fused.program()->step({.tokens = tokens,
                           .sequences = sequences,
                           .cache = layers,
                           .logit_rows = wanted,
                           .logits = logits.as<float>()});
    Values found(70);
    gpu_->download(found.data(), logits.as<float>(), logits.bytes());
    if (i == 0)
      first = found;
    else
      EXPECT_EQ(found, first);
  }
  for (const float v : first) EXPECT_TRUE(std::isfinite(v));
}

TEST_F(GpuProgramTest, WhatHasNoFusedFormSaysWhy) {
  const test::TinyShape shape{.hidden_size = 192, .intermediate_size = 200, .head_dim = 24};
  const QuantizedModel model = test::tiny_quantized(test::tiny_model(shape), 4);
  const Decoder fused(*gpu_, model, Compute::kF32, DecoderPath::kFused);
  EXPECT_EQ(fused.program(), nullptr);
  EXPECT_NE(fused.describe().find("heads of 24"), std::string::npos) << fused.describe();
}

TEST(GpuBackend, AnUnknownKernelIsRefused) {
  const Result<std::unique_ptr<Backend>> made = make_gpu_backend(0, "cuda.magic");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace spear
