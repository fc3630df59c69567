#include "spear/model/decoder.h"

#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"

#include "model/naive_decoder.h"
#include "support/closeness.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using test::Rows;
using test::TinyShape;

std::vector<int32_t> some_tokens(int64_t count, int64_t vocab, int64_t seed) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>((seed + 7 * i * i + 3 * i) % vocab));
  return tokens;
}

class DecoderTest : public ::testing::TestWithParam<TinyShape> {
 protected:
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
};

// Hidden states and logits of order one pass through layers of at most 40-term sums: FP32 leaves
// the absolute error far below this bound, and any wrong index, sign or position is orders of
// magnitude above it.
constexpr test::Closeness kFp32{.absolute = 1e-4, .relative = 1e-4};

std::vector<double> flatten(const Rows& rows) {
  std::vector<double> out;
  for (const auto& row : rows) out.insert(out.end(), row.begin(), row.end());
  return out;
}

TEST_P(DecoderTest, PrefillAgreesWithPlainDoubleLoops) {
  const DenseModel model = test::tiny_model(GetParam());
  Decoder decoder(*backend_, model, Compute::kF32);
  const auto tokens = some_tokens(70, model.config.vocab_size, 5);  // more than a page
  KvCache cache(*backend_, model.config, 1, 70, false);
  const AttentionSequence sequence = cache.append(0, 0, 70);
  std::vector<float> hidden(70 * static_cast<size_t>(model.config.hidden_size));
  decoder.forward({tokens, {&sequence, 1}}, cache, hidden.data());
  const Rows expected = test::naive_hidden(model, tokens);
  EXPECT_TRUE(test::all_close(hidden, flatten(expected), kFp32));
  std::vector<float> logits(static_cast<size_t>(model.config.vocab_size));
  decoder.logits(hidden.data() + 69 * model.config.hidden_size, 1, logits.data());
  EXPECT_TRUE(test::all_close(logits, test::naive_logits(model, expected.back()), kFp32));
}

TEST_P(DecoderTest, DecodingTokenByTokenEqualsPrefill) {
  const DenseModel model = test::tiny_model(GetParam());
  Decoder decoder(*backend_, model, Compute::kF32);
  const auto tokens = some_tokens(67, model.config.vocab_size, 11);
  const Rows expected = test::naive_hidden(model, tokens);
  KvCache cache(*backend_, model.config, 1, 80, true);
  std::vector<float> hidden(static_cast<size_t>(model.config.hidden_size) * 3);
  for (size_t t = 0; t < tokens.size();) {
    const size_t rows = t == 0 ? 3 : 1;  // a prefill of three, then one by one
    const AttentionSequence sequence = cache.append(0, 0, static_cast<int64_t>(rows));
    decoder.forward({std::span(tokens).subspan(t, rows), {&sequence, 1}}, cache, hidden.data());
    t += rows;
    const auto last =
        std::span(hidden).subspan((rows - 1) * static_cast<size_t>(model.config.hidden_size),
                                  static_cast<size_t>(model.config.hidden_size));
    EXPECT_TRUE(test::all_close(last, expected[t - 1], kFp32)) << "at token " << t;
  }
}

TEST_P(DecoderTest, ABatchOfSequencesEqualsEachAlone) {
  const DenseModel model = test::tiny_model(GetParam());
  Decoder decoder(*backend_, model, Compute::kF32);
  const int64_t lengths[] = {1, 9, 4};
  KvCache cache(*backend_, model.config, 3, 16, true);
  std::vector<int32_t> tokens;
  std::vector<AttentionSequence> sequences;
  std::vector<double> expected;
  for (int64_t s = 0; s < 3; ++s) {
    const auto own = some_tokens(lengths[s], model.config.vocab_size, 3 * s);
    sequences.push_back(cache.append(s, static_cast<int64_t>(tokens.size()), lengths[s]));
    tokens.insert(tokens.end(), own.begin(), own.end());
    const auto rows = flatten(test::naive_hidden(model, own));
    expected.insert(expected.end(), rows.begin(), rows.end());
  }
  std::vector<float> hidden(expected.size());
  decoder.forward({tokens, sequences}, cache, hidden.data());
  EXPECT_TRUE(test::all_close(hidden, expected, kFp32));
}

TEST_P(DecoderTest, QuantizedWeightsRunAsTheirDequantizedValues) {
  const DenseModel dense = test::tiny_model(GetParam());
  const QuantizedModel quantized = test::tiny_quantized(dense, 4);
  DenseModel expanded = test::tiny_model(GetParam());
  for (size_t l = 0; l < expanded.layers.size(); ++l) {
    const auto halve = [](HostTensor& tensor) {
      for (float& value : tensor.as<float>()) value = float_from_f16(f16_from_float(value));
    };
    halve(expanded.layers[l].input_norm);
    halve(expanded.layers[l].post_attention_norm);
    for (const Module m : kModules) {
      DenseLinear& linear = expanded.layers[l].linear(m);
      const QuantizedView view = quantized.layers[l].linear(m).weight.view();
      dequantize_rows(view, 0, view.n, linear.weight.as<float>().data());
      if (!linear.bias.empty()) halve(linear.bias);
    }
  }
  for (HostTensor* matrix : {&expanded.embedding, &expanded.head})
    for (float& value : matrix->as<float>()) value = float_from_bf16(bf16_from_float(value));
  Decoder decoder(*backend_, quantized, Compute::kF32);
  const auto tokens = some_tokens(20, dense.config.vocab_size, 2);
  KvCache cache(*backend_, dense.config, 1, 20, false);
  const AttentionSequence sequence = cache.append(0, 0, 20);
  std::vector<float> hidden(20 * static_cast<size_t>(dense.config.hidden_size));
  decoder.forward({tokens, {&sequence, 1}}, cache, hidden.data());
  EXPECT_TRUE(test::all_close(hidden, flatten(test::naive_hidden(expanded, tokens)), kFp32));
}

TEST_P(DecoderTest, TapsSeeEverySiteOnce) {
  const DenseModel model = test::tiny_model(GetParam());
  Decoder decoder(*backend_, model, Compute::kF32);
  std::vector<std::pair<int32_t, InputSite>> seen;
  decoder.set_tap([&](int32_t layer, InputSite site, const float*, int64_t m, int64_t k) {
    seen.emplace_back(layer, site);
    EXPECT_EQ(m, 5);
    EXPECT_EQ(k, site_width(model.config, site));
  });
  const auto tokens = some_tokens(5, model.config.vocab_size, 1);
  KvCache cache(*backend_, model.config, 1, 5, false);
  const AttentionSequence sequence = cache.append(0, 0, 5);
  std::vector<float> hidden(5 * static_cast<size_t>(model.config.hidden_size));
  decoder.forward({tokens, {&sequence, 1}}, cache, hidden.data());
  ASSERT_EQ(seen.size(), model.layers.size() * kSitesPerLayer);
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].first, static_cast<int32_t>(i / kSitesPerLayer));
    EXPECT_EQ(seen[i].second, static_cast<InputSite>(i % kSitesPerLayer));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, DecoderTest,
    ::testing::Values(TinyShape{}, TinyShape{.tied = false, .attention_bias = true},
                      TinyShape{.head_dim = 16, .qk_norm = true},
                      TinyShape{.num_key_value_heads = 4},
                      TinyShape{.num_hidden_layers = 1, .num_key_value_heads = 1}),
    [](const auto& param) {
      const TinyShape& s = param.param;
      return std::string(s.qk_norm          ? "QkNorm"
                         : s.attention_bias ? "UntiedBias"
                                            : "Plain") +
             std::to_string(s.num_key_value_heads) + "Kv";
    });

}  // namespace
}  // namespace spear
