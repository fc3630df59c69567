// The forward pass against an independent implementation (transformers on torch):
// tests/golden/make_logits_goldens.py. Tiny models of every family go through the importers of both
// formats; the real SmolLM2 where it is at hand.
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/thread_pool.h"
#include "spear/model/checkpoint.h"
#include "spear/model/decoder.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

const std::filesystem::path kSource = SPEAR_SOURCE_DIR;

Json golden(const std::string& name) {
  const auto path = kSource / "tests/golden/logits" / (name + ".json");
  return value_or_throw(parse_json(value_or_throw(read_text_file(path)), path.string()));
}

// Largest difference, over the recorded positions, of log-sum-exp and of the recorded logits.
double worst_difference(const std::filesystem::path& model_path, const Json& expected) {
  ThreadPool pool(2);
  SilentProgress silent;
  const Checkpoint checkpoint = value_or_throw(Checkpoint::open(model_path));
  const DenseModel model = load_dense(checkpoint, DType::kF32, pool, silent);
  const std::unique_ptr<Backend> backend = value_or_throw(make_cpu_backend(pool));
  Decoder decoder(*backend, model, Compute::kF32);
  const auto ids = expected["ids"].get<std::vector<int32_t>>();
  const auto count = static_cast<int64_t>(ids.size());
  KvCache cache(*backend, model.config, 1, count, false);
  const AttentionSequence rows = cache.append(0, 0, count);
  std::vector<float> hidden(ids.size() * static_cast<size_t>(model.config.hidden_size));
  decoder.forward({ids, {&rows, 1}}, cache, hidden.data());
  std::vector<float> logits(static_cast<size_t>(model.config.vocab_size));
  double worst = 0;
  for (const Json& row : expected["rows"]) {
    decoder.logits(hidden.data() + row["position"].get<int64_t>() * model.config.hidden_size, 1,
                   logits.data());
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l));
    worst = std::max(worst, std::fabs(std::log(sum) - row["log_sum_exp"].get<double>()));
    for (size_t i = 0; i < row["ids"].size(); ++i)
      worst = std::max(worst, std::fabs(static_cast<double>(logits[row["ids"][i].get<size_t>()]) -
                                        row["logits"][i].get<double>()));
  }
  return worst;
}

class GoldenLogits : public ::testing::TestWithParam<const char*> {
 protected:
  static const std::filesystem::path& tiny_models() {
    static const test::TemporaryDirectory folder;
    static const int status =
        std::system(("python3 '" + (kSource / "tools/make_tiny_model.py").string() + "' '" +
                     folder.path().string() + "' > /dev/null")
                        .c_str());
    static const std::filesystem::path path = status == 0 ? folder.path() : std::filesystem::path();
    return path;
  }
};

// Two FP32 implementations of the same 2-layer model: sums in another order, nothing else. A wrong
// pairing of heads, frequency or bias moves logits by tenths.
constexpr double kTinyTolerance = 2e-4;

TEST_P(GoldenLogits, SafetensorsOfTheFamilyAgree) {
  ASSERT_FALSE(tiny_models().empty()) << "python3 tools/make_tiny_model.py failed";
  EXPECT_LT(worst_difference(tiny_models() / GetParam(), golden(std::string("tiny-") + GetParam())),
            kTinyTolerance);
}

TEST_P(GoldenLogits, GgufOfTheFamilyAgrees) {
  ASSERT_FALSE(tiny_models().empty()) << "python3 tools/make_tiny_model.py failed";
  EXPECT_LT(worst_difference(tiny_models() / (std::string(GetParam()) + ".gguf"),
                             golden(std::string("tiny-") + GetParam())),
            kTinyTolerance);
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenLogits,
                         ::testing::Values("llama", "smollm2", "linear", "mistral", "qwen2",
                                           "qwen3"),
                         [](const auto& param) { return std::string(param.param); });

// 30 layers in FP32: two implementations part by rounding alone, which grows with depth; observed
// below 1e-3.
TEST(GoldenLogitsOfSmolLm2, AgreeWithTransformers) {
  const char* assets = std::getenv("SPEAR_TEST_ASSETS");
  if (assets == nullptr)
    GTEST_SKIP() << "SPEAR_TEST_ASSETS is not set (tools/fetch_test_assets.py)";
  const auto path = std::filesystem::path(assets) / "smollm2-135m.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  EXPECT_LT(worst_difference(path, golden("smollm2-135m")), 5e-3);
}

}  // namespace
}  // namespace spear
