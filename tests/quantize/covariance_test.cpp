#include "spear/quantize/covariance.h"

#include <cmath>
#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"

#include "support/closeness.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

TokenSequences tokens_of(int64_t count, int64_t length, const ModelConfig& config) {
  Rng rng(3);
  TokenSequences tokens{count, length, {}};
  for (int64_t i = 0; i < count * length; ++i)
    tokens.ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint32_t>(config.vocab_size))));
  return tokens;
}

struct Bench {
  ThreadPool pool{2};
  test::TinyShape shape;
  DenseModel model = test::tiny_model(shape);
  std::unique_ptr<Backend> backend = value_or_throw(make_cpu_backend(pool));
  Decoder decoder{*backend, model, Compute::kF32};
  TokenSequences tokens = tokens_of(5, 12, model.config);
  test::TemporaryDirectory folder;

  Covariances open(Compute compute = Compute::kF32) {
    return Covariances(folder.path(), model.config, model.content_hash, tokens.hash(), compute);
  }
};

// Second moments by their definition: the whole model on one sequence after another.
std::map<std::pair<int32_t, InputSite>, std::vector<double>> plain_moments(Bench& s) {
  std::map<std::pair<int32_t, InputSite>, std::vector<double>> moments;
  s.decoder.set_tap([&](int32_t layer, InputSite site, const float* x, int64_t m, int64_t k) {
    std::vector<double>& sum = moments[{layer, site}];
    sum.resize(static_cast<size_t>(k * k));
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < k; ++j)
          sum[static_cast<size_t>(i * k + j)] +=
              static_cast<double>(x[t * k + i]) * x[t * k + j] /
              static_cast<double>(s.tokens.count * s.tokens.length);
  });
  const DeviceBuffer hidden = s.backend->allocate(
      static_cast<size_t>(s.tokens.length * s.model.config.hidden_size) * sizeof(float));
  for (int64_t i = 0; i < s.tokens.count; ++i) {
    KvCache cache(*s.backend, s.model.config, 1, s.tokens.length, false);
    const std::vector<AttentionSequence> sequences = {cache.append(0, 0, s.tokens.length)};
    s.decoder.forward({s.tokens.row(i), sequences}, cache, hidden.as<float>());
  }
  s.decoder.set_tap({});
  return moments;
}

void expect_moments(Bench& s, const Covariances& covariances, double roundoff) {
  for (const auto& [key, expected] : plain_moments(s)) {
    const int64_t k = site_width(s.model.config, key.second);
    const HostTensor actual = covariances.load(key.first, key.second);
    // |Σ x_i x_j| is bounded by √(R_ii R_jj), and so is the rounding of both factors and of the
    // sum.
    std::vector<double> bounds(expected.size());
    const double relative =
        2.1 * roundoff + test::gamma(s.tokens.count * s.tokens.length, test::kRoundoffF32);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j)
        bounds[static_cast<size_t>(i * k + j)] =
            relative * std::sqrt(expected[static_cast<size_t>(i * k + i)] *
                                 expected[static_cast<size_t>(j * k + j)]);
    EXPECT_TRUE(test::all_within(actual.as<float>(), expected, bounds, {k}));
  }
}

TEST(Covariances, AreTheSecondMomentsOfEveryInput) {
  Bench s;
  SilentProgress progress;
  const Covariances covariances = s.open();
  EXPECT_FALSE(covariances.complete());
  // Two sequences a chunk, so the last chunk is a smaller one.
  gather_covariances(s.decoder, s.tokens, {.compute = Compute::kF32, .tokens_per_chunk = 24},
                     covariances, s.pool, progress);
  ASSERT_TRUE(covariances.complete());
  expect_moments(s, covariances, test::kRoundoffF32);
}

TEST(Covariances, InBf16AreWithinItsRounding) {
  Bench s;
  SilentProgress progress;
  const Covariances covariances = s.open(Compute::kBF16);
  gather_covariances(s.decoder, s.tokens, {.compute = Compute::kBF16}, covariances, s.pool,
                     progress);
  expect_moments(s, covariances, test::kRoundoffBF16);
}

class StopAfter final : public Progress {
 public:
  explicit StopAfter(int64_t steps) : left_(steps) {}
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t steps, std::string_view) override { left_ -= steps; }
  void end() override {}
  [[nodiscard]] bool stop_requested() const override { return left_ <= 0; }

 private:
  int64_t left_;
};

TEST(Covariances, GoOnAfterAnInterruptionWithTheSameNumbers) {
  Bench s, other;
  StopAfter stop(1);
  const GatherOptions options{.compute = Compute::kF32};
  EXPECT_THROW(gather_covariances(s.decoder, s.tokens, options, s.open(), s.pool, stop), Failure);
  EXPECT_TRUE(s.open().has(0, InputSite::kDown));
  EXPECT_FALSE(s.open().has(1, InputSite::kAttention));
  SilentProgress progress;
  gather_covariances(s.decoder, s.tokens, options, s.open(), s.pool, progress);
  gather_covariances(other.decoder, other.tokens, options, other.open(), other.pool, progress);
  for (int32_t layer = 0; layer < 2; ++layer)
    for (int site = 0; site < kSitesPerLayer; ++site) {
      const HostTensor a = s.open().load(layer, static_cast<InputSite>(site));
      const HostTensor b = other.open().load(layer, static_cast<InputSite>(site));
      EXPECT_TRUE(std::equal(a.as<float>().begin(), a.as<float>().end(), b.as<float>().begin()));
    }
}

TEST(Covariances, RefuseADamagedFile) {
  Bench s;
  SilentProgress progress;
  gather_covariances(s.decoder, s.tokens, {}, s.open(Compute::kBF16), s.pool, progress);
  const auto file = s.open(Compute::kBF16).folder() / "layer001.mlp";
  {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(100);
    stream.put('x');
  }
  EXPECT_THROW((void)s.open(Compute::kBF16).load(1, InputSite::kMlp), Failure);
  std::filesystem::resize_file(file, 60);
  EXPECT_FALSE(s.open(Compute::kBF16).complete());
  EXPECT_THROW((void)s.open(Compute::kBF16).load(1, InputSite::kMlp), Failure);
  std::filesystem::remove(file);
  EXPECT_THROW((void)s.open(Compute::kBF16).load(1, InputSite::kMlp), Failure);
}

TEST(Covariances, NeedTokens) {
  Bench s;
  SilentProgress progress;
  s.tokens = {};
  EXPECT_THROW(gather_covariances(s.decoder, s.tokens, {}, s.open(), s.pool, progress), Failure);
}

TEST(Covariances, OtherModelsAndTokensHaveOtherFolders) {
  Bench s;
  const auto folder = s.open().folder();
  EXPECT_NE(folder, s.open(Compute::kBF16).folder());
  s.tokens.ids[0] ^= 1;
  EXPECT_NE(folder, s.open().folder());
  EXPECT_NE(folder,
            Covariances(s.folder.path(), s.model.config, "another", s.tokens.hash(), Compute::kF32)
                .folder());
}

}  // namespace
}  // namespace spear
