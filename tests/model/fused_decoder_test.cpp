// The compiled step beside the plain path of the decoder, on tiny models of every kind.
#include <cmath>
#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"
#include "spear/model/decoder.h"

#include "support/closeness.h"
#include "support/guarded_buffer.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using test::TinyShape;

struct Outputs {
  std::vector<float> hidden, logits;
};

// Sequences of these lengths with these numbers of rows before them, all in one batch.
struct Mix {
  std::vector<int64_t> context, rows;
};

std::vector<int32_t> tokens_of(int64_t count, int64_t vocab, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(rng.next() % static_cast<uint64_t>(vocab)));
  return tokens;
}

Outputs run(Decoder& decoder, Backend& backend, const Mix& mix, DType type = DType::kF32) {
  const ModelConfig& config = decoder.config();
  const auto count = static_cast<int64_t>(mix.rows.size());
  KvCache cache(backend, config, count, 128, true, type);
  std::vector<int32_t> tokens;
  std::vector<AttentionSequence> sequences;
  for (int64_t s = 0; s < count; ++s) {
    const int64_t before = mix.context[static_cast<size_t>(s)];
    if (before > 0) {
      const AttentionSequence first = cache.append(s, 0, before);
      const auto prompt = tokens_of(before, config.vocab_size, 100 + static_cast<uint64_t>(s));
      std::vector<float> ignored(static_cast<size_t>(before * config.hidden_size));
      decoder.forward({prompt, {&first, 1}}, cache, ignored.data());
    }
    const int64_t rows = mix.rows[static_cast<size_t>(s)];
    sequences.push_back(cache.append(s, static_cast<int64_t>(tokens.size()), rows));
    const auto own = tokens_of(rows, config.vocab_size, 200 + static_cast<uint64_t>(s));
    tokens.insert(tokens.end(), own.begin(), own.end());
  }
  const auto m = static_cast<int64_t>(tokens.size());
  test::GuardedBuffer<float> hidden(m * config.hidden_size);
  test::GuardedBuffer<float> logits(m * config.vocab_size);
  decoder.forward({tokens, sequences}, cache, hidden.data());
  decoder.logits(hidden.data(), m, logits.data());
  EXPECT_TRUE(hidden.intact());
  EXPECT_TRUE(logits.intact());
  return {hidden.values(), logits.values()};
}

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / size);
}

const Mix kMixes[] = {{{0}, {1}},         {{5}, {1}},        {{0}, {70}}, {{3, 0, 9}, {1, 2, 1}},
                      {{0, 66}, {40, 1}}, {{0, 7}, {64, 37}}};

TEST(FusedDecoder, AgreesWithThePlainPath) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const char* kernel : {"w4.avx512", "w4.avx2", "w4.plain"}) {
      Result<std::unique_ptr<Backend>> made = make_cpu_backend(pool, kernel);
      if (!made) continue;
      Backend& backend = **made;
      for (const TinyShape& shape : {TinyShape{}, TinyShape{.tied = false, .attention_bias = true},
                                     TinyShape{.hidden_size = 96,
                                     .intermediate_size = 200,
                                     .head_dim = 24,
                                     .vocab_size = 70,
                                     .qk_norm = true}}) {
        const QuantizedModel model = test::tiny_quantized(test::tiny_model(shape), 4);
        Decoder plain(backend, model, Compute::kF32);
        Decoder exact(backend, model, Compute::kF32, DecoderPath::kFusedExact);
        Decoder fused(backend, model, Compute::kF32, DecoderPath::kFused);
        ASSERT_NE(exact.program(), nullptr) << exact.describe();
        for (const Mix& mix : kMixes) {
          const Outputs want = run(plain, backend, mix);
          const Outputs near = run(exact, backend, mix);
          const Outputs rough = run(fused, backend, mix);
          EXPECT_LT(relative_distance(near.hidden, want.hidden), 3e-4) << kernel << threads;
          EXPECT_LT(relative_distance(near.logits, want.logits), 3e-4) << kernel;
          EXPECT_LT(relative_distance(rough.hidden, want.hidden), 5e-2) << kernel;
          EXPECT_LT(relative_distance(rough.logits, want.logits), 5e-2) << kernel;
        }
      }
    }
  }
}

}  // namespace
}  // namespace spear
