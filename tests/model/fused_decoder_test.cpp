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
#include "support/tiny_compressed.h"

namespace spear {
namespace {

using test::CompressedShape;
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
                      {{0, 66}, {40, 1}}, {{0, 7}, {96, 37}}};

// Rounding of an input to 16 bits is at most 2^-16 of the row's largest element, about 2^-14 of its
// norm over the few dozen columns here; four inputs a layer and the compensators' ranks (2^-16)
// pass two layers of gain near one. Eight bits are 2^8 times that. A wrong index, sign, scale or
// zero point is of order one.
constexpr double kExactDistance = 5e-4;
constexpr double kInt8Distance = 8e-2;

struct Kind {
  const char* name;
  CompressedShape shape;
};

std::vector<Kind> kinds() {
  const TinyShape wide{
      .hidden_size = 96, .intermediate_size = 192, .head_dim = 24, .vocab_size = 70};
  TinyShape biased{.tied = false, .attention_bias = true};
  TinyShape normed = wide;
  normed.qk_norm = true;
  return {
      {"plain", {}},
      {"narrow zeros, two heads of weights",
       {.model = biased, .zero_kind = ZeroKind::kU4, .head_bits = 4, .rank = 3}},
      {"groups of 32, gated",
       {.model = wide, .group = 32, .rotated = true, .rank = 5, .gated = true}},
      {"symmetric, factors of 4 bits",
       {.model = wide,
        .zero_kind = ZeroKind::kNone,
        .head_bits = 16,
        .rank = 16,
        .factor_bits = 4,
        .gated = true}},
      {"8 bits, real zeros, norms of heads",
       {.model = normed, .bits = 8, .zero_kind = ZeroKind::kF16, .rotated = true, .rank = 2}},
      {"3 bits in groups", {.model = wide, .bits = 3, .group = 96, .rotated = true, .rank = 1}}};
}

std::vector<std::unique_ptr<Backend>> backends(ThreadPool& pool) {
  std::vector<std::unique_ptr<Backend>> made;
  for (const char* kernel : {"w4.avx512", "w4.avx2", "w4.plain"})
    if (Result<std::unique_ptr<Backend>> backend = make_cpu_backend(pool, kernel))
      made.push_back(std::move(*backend));
  return made;
}

TEST(FusedDecoder, AgreesWithThePlainPathOnEveryKindOfModelAndBatch) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    const auto made = backends(pool);
    for (const Kind& kind : kinds()) {
      const QuantizedModel model = test::tiny_compressed(kind.shape);
      Decoder plain(*made.front(), model, Compute::kF32);
      std::vector<Outputs> want;
      for (const Mix& mix : kMixes) want.push_back(run(plain, *made.front(), mix));
      for (const auto& backend : made) {
        Decoder exact(*backend, model, Compute::kF32, DecoderPath::kFusedExact);
        Decoder fused(*backend, model, Compute::kF32, DecoderPath::kFused);
        ASSERT_NE(exact.program(), nullptr) << exact.describe();
        for (size_t i = 0; i < want.size(); ++i) {
          const Outputs close = run(exact, *backend, kMixes[i]);
          const Outputs rough = run(fused, *backend, kMixes[i]);
          SCOPED_TRACE(std::string(kind.name) + ", " + exact.describe() + ", mix " +
                       std::to_string(i) + ", threads " + std::to_string(threads));
          EXPECT_LT(relative_distance(close.hidden, want[i].hidden), kExactDistance);
          EXPECT_LT(relative_distance(close.logits, want[i].logits), kExactDistance);
          EXPECT_LT(relative_distance(rough.hidden, want[i].hidden), kInt8Distance);
          EXPECT_LT(relative_distance(rough.logits, want[i].logits), kInt8Distance);
        }
      }
    }
  }
}

TEST(FusedDecoder, ReadsEveryTypeOfCache) {
  ThreadPool pool(2);
  const auto made = backends(pool);
  const QuantizedModel model = test::tiny_compressed({.model = {}, .rank = 3});
  for (const DType type : {DType::kF16, DType::kI8}) {
    Decoder plain(*made.front(), model, Compute::kF32);
    Decoder exact(*made.front(), model, Compute::kF32, DecoderPath::kFusedExact);
    for (const Mix& mix : kMixes) {
      const Outputs want = run(plain, *made.front(), mix, type);
      const Outputs found = run(exact, *made.front(), mix, type);
      // A value at the edge of two codes may fall to either side: one step of INT8 is 2^-7.
      EXPECT_LT(relative_distance(found.hidden, want.hidden), type == DType::kI8 ? 1e-2 : 1e-3);
    }
  }
}

// The tokens of a request do not depend on what else is in the batch: bit for bit.
TEST(FusedDecoder, ASequenceDoesNotSeeItsBatchMates) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    for (const auto& backend : backends(pool))
      for (const DecoderPath path : {DecoderPath::kFused, DecoderPath::kFusedExact}) {
        const QuantizedModel model =
            test::tiny_compressed({.model = {.hidden_size = 96, .intermediate_size = 192},
                                   .rotated = true,
                                   .rank = 5,
                                   .gated = true});
        Decoder decoder(*backend, model, Compute::kF32, path);
        for (const int64_t rows : {1, 40}) {
          const Outputs alone = run(decoder, *backend, {{6}, {rows}});
          for (const Mix& mates : {Mix{{6, 3}, {rows, 1}}, Mix{{6, 0, 2}, {rows, 5, 1}},
                                   Mix{{6, 0, 9}, {rows, 70, 33}}}) {
            const Outputs mixed = run(decoder, *backend, mates);
            for (size_t i = 0; i < alone.hidden.size(); ++i)
              ASSERT_EQ(alone.hidden[i], mixed.hidden[i]) << decoder.describe() << " rows " << rows;
            for (size_t i = 0; i < alone.logits.size(); ++i)
              ASSERT_EQ(alone.logits[i], mixed.logits[i]) << decoder.describe() << " rows " << rows;
          }
        }
      }
  }
}

TEST(FusedDecoder, GivesTheLogitsOfWantedRowsInOneStep) {
  ThreadPool pool(2);
  const std::unique_ptr<Backend> backend = value_or_throw(make_cpu_backend(pool));
  const QuantizedModel model = test::tiny_compressed({.model = {}, .rotated = true, .rank = 2});
  Decoder decoder(*backend, model, Compute::kF32, DecoderPath::kFused);
  const auto vocab = static_cast<size_t>(model.config.vocab_size);
  for (const int64_t m : {1, 9, 80}) {
    KvCache cache(*backend, model.config, 1, 128, true);
    const AttentionSequence sequence = cache.append(0, 0, m);
    const auto tokens = tokens_of(m, model.config.vocab_size, 9);
    const std::span<const KvLayerView> views = cache.layers();
    std::vector<int32_t> rows;
    for (int64_t i = m - 1; i >= 0; i -= 3) rows.insert(rows.begin(), static_cast<int32_t>(i));
    test::GuardedBuffer<float> hidden(m * model.config.hidden_size);
    test::GuardedBuffer<float> some(static_cast<int64_t>(rows.size() * vocab));
    decoder.program()->step({.tokens = tokens,
                             .sequences = {&sequence, 1},
                             .cache = views,
                             .logit_rows = rows,
                             .hidden = hidden.data(),
                             .logits = some.data()});
    test::GuardedBuffer<float> all(m * static_cast<int64_t>(vocab));
    decoder.logits(hidden.data(), m, all.data());
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t j = 0; j < vocab; ++j)
        ASSERT_EQ(some.data()[i * vocab + j], all.data()[static_cast<size_t>(rows[i]) * vocab + j]);
    EXPECT_TRUE(some.intact() && hidden.intact() && all.intact());
  }
}

TEST(FusedDecoder, LeavesToThePlainPathWhatItCannotDo) {
  ThreadPool pool(1);
  const std::unique_ptr<Backend> backend = value_or_throw(make_cpu_backend(pool));
  const QuantizedModel odd = test::tiny_compressed({.model = {}, .group = 8});
  Decoder plain(*backend, odd, Compute::kF32);
  Decoder decoder(*backend, odd, Compute::kF32, DecoderPath::kFused);
  EXPECT_EQ(decoder.program(), nullptr);
  EXPECT_EQ(decoder.describe(), "one operation after the other: layer 0, q: groups of 8 columns");
  EXPECT_EQ(run(decoder, *backend, {{0}, {5}}).hidden, run(plain, *backend, {{0}, {5}}).hidden);

  // A tap and an exchanged linear want single operations; the step returns with the original.
  const QuantizedModel model = test::tiny_compressed(CompressedShape{});
  Decoder fused(*backend, model, Compute::kF32, DecoderPath::kFused);
  Decoder other(*backend, model, Compute::kF32);
  ASSERT_NE(fused.program(), nullptr);
  int64_t seen = 0;
  fused.set_tap([&](int32_t, InputSite, const float*, int64_t, int64_t) { ++seen; });
  EXPECT_EQ(run(fused, *backend, {{0}, {5}}).hidden, run(other, *backend, {{0}, {5}}).hidden);
  EXPECT_EQ(seen, 4 * model.config.num_hidden_layers);
  fused.set_tap({});
  const QuantizedMatrix& up = model.layers[1].linear(Module::kUp).weight;
  const ModuleId id{1, Module::kUp};
  LinearPointer original = fused.exchange(
      id, backend->prepare_quantized(up.view(), {}, fused.bias_of(id), Compute::kF32));
  EXPECT_EQ(fused.program(), nullptr);
  fused.exchange(id, original);
  EXPECT_NE(fused.program(), nullptr);
}

TEST(FusedDecoder, RefusesAKernelThatIsNotHere) {
  ThreadPool pool(1);
  const Result<std::unique_ptr<Backend>> made = make_cpu_backend(pool, "w4.sse9");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(made.error().message.find("w4.plain"), std::string::npos) << made.error().message;
  const std::unique_ptr<Backend> forced = value_or_throw(make_cpu_backend(pool, "w4.plain"));
  const QuantizedModel model = test::tiny_compressed(CompressedShape{});
  const Decoder decoder(*forced, model, Compute::kF32, DecoderPath::kFused);
  EXPECT_NE(decoder.describe().find("w4.plain"), std::string::npos) << decoder.describe();
}

}  // namespace
}  // namespace spear
