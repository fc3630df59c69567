#include "spear/quantize/rotation.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/model/decoder.h"
#include "spear/quantize/matrix.h"

#include "support/closeness.h"
#include "support/random_tensors.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

// Q by its definition: row i is e_i · S · (F ⊗ H) · S'.
Matrix dense_rotation(const ResidualRotation& r) {
  const int64_t n = r.p * r.h;
  Matrix q(n, n);
  for (int64_t a = 0; a < n; ++a)
    for (int64_t b = 0; b < n; ++b) {
      const auto bits = static_cast<uint64_t>((a % r.h) & (b % r.h));
      const double hadamard =
          (__builtin_popcountll(bits) % 2 == 0 ? 1.0 : -1.0) / std::sqrt(static_cast<double>(r.h));
      q(a, b) = r.signs_in[static_cast<size_t>(a)] *
                r.factor[static_cast<size_t>((a / r.h) * r.p + b / r.h)] * hadamard *
                r.signs_out[static_cast<size_t>(b)];
    }
  return q;
}

TEST(Rotation, IsOrthogonalForEverySize) {
  for (const int64_t n : {1, 2, 3, 8, 12, 24, 64, 72, 112}) {
    const Matrix q = dense_rotation(make_rotation(n, 3));
    for (int64_t a = 0; a < n; ++a)
      for (int64_t b = 0; b < n; ++b) {
        double dot = 0;
        for (int64_t i = 0; i < n; ++i) dot += q(i, a) * q(i, b);
        EXPECT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-6) << n;
      }
  }
}

TEST(Rotation, SplitsRealHiddenSizes) {
  for (const auto& [n, p] : std::vector<std::pair<int64_t, int64_t>>{
           {576, 9}, {896, 7}, {1536, 3}, {2048, 1}, {4096, 1}, {5120, 5}}) {
    const ResidualRotation r = make_rotation(n, 1);
    EXPECT_EQ(r.p, p);
    EXPECT_EQ(r.p * r.h, n);
    EXPECT_EQ(r.signs_in, make_rotation(n, 1).signs_in);
    EXPECT_NE(r.signs_in, make_rotation(n, 2).signs_in);
  }
}

TEST(Rotation, FoldsAndRotatesByDefinition) {
  ThreadPool pool(2);
  const DenseModel model = test::tiny_model({.attention_bias = true});
  const Rotation rotation = make_rotation(model.config, 5);
  const Matrix q = dense_rotation(rotation.residual);
  const Matrix r2 = dense_rotation(rotation.head);
  const int64_t hidden = model.config.hidden_size, d = model.config.head_dim;
  const auto plain = [&](Module m) { return model.layers[1].linear(m).weight.as<float>(); };
  // gate: W · D · Q
  const WorkingLinear gate = working_linear(model, {1, Module::kGate}, &rotation, pool);
  const auto norm = model.layers[1].post_attention_norm.as<float>();
  for (int64_t i = 0; i < gate.weight.shape()[0]; ++i)
    for (int64_t j = 0; j < hidden; ++j) {
      double expected = 0;
      for (int64_t l = 0; l < hidden; ++l)
        expected += static_cast<double>(plain(Module::kGate)[static_cast<size_t>(i * hidden + l)]) *
                    norm[static_cast<size_t>(l)] * q(l, j);
      ASSERT_NEAR(gate.weight.as<float>()[static_cast<size_t>(i * hidden + j)], expected, 2e-6);
    }
  // o: Qᵀ · W · blockdiag(R2)
  const WorkingLinear o = working_linear(model, {1, Module::kO}, &rotation, pool);
  const int64_t k = model.config.q_size();
  for (int64_t i = 0; i < hidden; ++i)
    for (int64_t j = 0; j < k; ++j) {
      double expected = 0;
      for (int64_t a = 0; a < hidden; ++a)
        for (int64_t b = 0; b < d; ++b)
          expected += q(a, i) * plain(Module::kO)[static_cast<size_t>(a * k + j / d * d + b)] *
                      r2(b, j % d);
      ASSERT_NEAR(o.weight.as<float>()[static_cast<size_t>(i * k + j)], expected, 2e-6);
    }
  // v's bias: R2ᵀ per head
  const WorkingLinear v = working_linear(model, {1, Module::kV}, &rotation, pool);
  const auto bias = model.layers[1].linear(Module::kV).bias.as<float>();
  for (int64_t i = 0; i < model.config.kv_size(); ++i) {
    double expected = 0;
    for (int64_t a = 0; a < d; ++a)
      expected += r2(a, i % d) * bias[static_cast<size_t>(i / d * d + a)];
    ASSERT_NEAR(v.bias[static_cast<size_t>(i)], expected, 2e-6);
  }
}

DenseModel rotated_copy(const DenseModel& model, const Rotation& rotation, ThreadPool& pool) {
  DenseModel out;
  out.config = model.config;
  out.embedding = model.embedding.clone();
  cpu::rotate(
      {model.config.vocab_size, rotation.residual.view(), false, out.embedding.as<float>().data()},
      pool);
  out.final_norm = model.final_norm.clone();
  for (int32_t l = 0; l < static_cast<int32_t>(model.layers.size()); ++l) {
    DenseLayer& layer = out.layers.emplace_back();
    for (HostTensor* norm : {&layer.input_norm, &layer.post_attention_norm}) {
      *norm = HostTensor({model.config.hidden_size}, DType::kF32);
      for (float& weight : norm->as<float>()) weight = 1;
    }
    layer.q_norm = model.layers[static_cast<size_t>(l)].q_norm.clone();
    layer.k_norm = model.layers[static_cast<size_t>(l)].k_norm.clone();
    for (const Module module : kModules) {
      WorkingLinear linear = working_linear(model, {l, module}, &rotation, pool);
      layer.linear(module).weight = std::move(linear.weight);
      if (linear.bias.empty()) continue;
      layer.linear(module).bias =
          HostTensor({static_cast<int64_t>(linear.bias.size())}, DType::kF32);
      std::copy(linear.bias.begin(), linear.bias.end(),
                layer.linear(module).bias.as<float>().begin());
    }
  }
  return out;
}

// The residual stream behind the last layer, [m, hidden].
std::vector<float> last_stream(const DenseModel& model, const std::vector<int32_t>& tokens,
                               ThreadPool& pool) {
  const auto backend = value_or_throw(make_cpu_backend(pool));
  Decoder decoder(*backend, model, Compute::kF32);
  const auto m = static_cast<int64_t>(tokens.size());
  KvCache cache(*backend, model.config, 1, m, false);
  std::vector<float> x(static_cast<size_t>(m * model.config.hidden_size));
  const DeviceBuffer device = backend->allocate(x.size() * sizeof(float));
  decoder.embed(tokens, device.as<float>());
  for (int32_t l = 0; l < static_cast<int32_t>(model.layers.size()); ++l) {
    cache.reset_all();
    const std::vector<AttentionSequence> sequences = {cache.append(0, 0, m)};
    decoder.run_layer(l, {tokens, sequences}, cache, device.as<float>());
  }
  backend->download(x.data(), device.as<float>(), x.size() * sizeof(float));
  return x;
}

TEST(Rotation, LeavesTheFunctionUnchanged) {
  ThreadPool pool(2);
  const std::vector<int32_t> tokens = {1, 5, 9, 2, 40, 41, 7, 7, 3, 30, 12};
  for (const test::TinyShape& shape :
       {test::TinyShape{.attention_bias = true}, test::TinyShape{.tied = false, .qk_norm = true},
        test::TinyShape{.hidden_size = 32, .num_attention_heads = 2, .head_dim = 12}}) {
    const DenseModel model = test::tiny_model(shape);
    const Rotation rotation = make_rotation(model.config, 11);
    const std::vector<float> expected = last_stream(model, tokens, pool);
    std::vector<float> actual = last_stream(rotated_copy(model, rotation, pool), tokens, pool);
    const auto m = static_cast<int64_t>(tokens.size());
    cpu::rotate({m, rotation.residual.view(), true, actual.data()}, pool);
    // Each layer is two residual branches of three products in a row, over at most k terms each;
    // the rotated weights carry one product's rounding more. A rotation mixes a row's elements, so
    // its largest bounds them all.
    const double steps = 2.0 * 3.0 * 2.0 * static_cast<double>(model.layers.size());
    const double relative = steps * test::gamma(model.config.intermediate_size, test::kRoundoffF32);
    double largest = 0;
    for (const float value : expected)
      largest = std::max(largest, std::fabs(static_cast<double>(value)));
    EXPECT_TRUE(test::all_close(
        actual, expected, {.absolute = relative * largest, .columns = model.config.hidden_size}));
  }
}

// R' must be the second moment of what the rotated linear reads.
TEST(Rotation, TurnsCovariancesWithTheirInputs) {
  ThreadPool pool(2);
  DenseModel model = test::tiny_model();
  model.layers[0].input_norm.as<float>()[3] = 0.0f;  // nothing passes through this channel
  const Rotation rotation = make_rotation(model.config, 2);
  Rng rng(1);
  for (const InputSite site :
       {InputSite::kAttention, InputSite::kOutput, InputSite::kMlp, InputSite::kDown}) {
    const int64_t k = site_width(model.config, site), samples = 9;
    const DenseLayer& layer = model.layers[0];
    const HostTensor* norm = site == InputSite::kAttention ? &layer.input_norm
                             : site == InputSite::kMlp     ? &layer.post_attention_norm
                                                           : nullptr;
    HostTensor before({k, k}, DType::kF32);
    std::vector<double> expected(static_cast<size_t>(k * k));
    std::vector<double> sum(expected.size());
    for (int64_t s = 0; s < samples; ++s) {
      std::vector<float> u = test::normal_values(k, rng),
                         x = u;  // x = D·u is read now, u·Q when rotated
      for (int64_t i = 0; norm != nullptr && i < k; ++i) {
        x[static_cast<size_t>(i)] *= norm->as<float>()[static_cast<size_t>(i)];
        if (norm->as<float>()[static_cast<size_t>(i)] == 0) u[static_cast<size_t>(i)] = 0;
      }
      if (site != InputSite::kDown) {
        const ResidualRotation& q = site == InputSite::kOutput ? rotation.head : rotation.residual;
        cpu::rotate({k / q.view().n, q.view(), false, u.data()}, pool);
      }
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < k; ++j) {
          sum[static_cast<size_t>(i * k + j)] +=
              x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)];
          expected[static_cast<size_t>(i * k + j)] +=
              u[static_cast<size_t>(i)] * u[static_cast<size_t>(j)];
        }
    }
    std::copy(sum.begin(), sum.end(), before.as<float>().begin());
    rotate_covariance(model, 0, site, rotation, pool, before);
    EXPECT_TRUE(test::all_close(before.as<float>(), expected, {.absolute = 5e-5, .columns = k}));
  }
}

TEST(Rotation, WithoutOneTheWeightsStayAsTheyAre) {
  ThreadPool pool(1);
  const DenseModel model = test::tiny_model({}, 1, DType::kBF16);
  const WorkingLinear q = working_linear(model, {0, Module::kQ}, nullptr, pool);
  const auto bits = model.layers[0].linear(Module::kQ).weight.as<uint16_t>();
  for (size_t i = 0; i < bits.size(); ++i)
    ASSERT_EQ(q.weight.as<float>()[i], float_from_bf16(bits[i]));
  EXPECT_TRUE(q.bias.empty());
}

}  // namespace
}  // namespace spear
