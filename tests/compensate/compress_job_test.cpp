// Whole compressions of a tiny random model: what the command does, but for the command line.
#include "spear/compensate/compress_job.h"

#include <cstdlib>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "spear/base/error.h"
#include "spear/base/json.h"
#include "spear/compensate/trained_parameters.h"
#include "spear/model/model_file.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

// One tiny model for all tests, and a text to calibrate on.
const fs::path& tiny_models() {
  static const test::TemporaryDirectory folder;
  static const bool made = [] {
    std::string text;
    for (int i = 0; i < 400; ++i)
      text +=
          "The whale number " + std::to_string(i * i) + " swam on; and the ship went after it. ";
    folder.file("text.txt", text);
    folder.file("short.txt", "Call me Ishmael.");
    return std::system(("python3 '" SPEAR_SOURCE_DIR "/tools/make_tiny_model.py' '" +
                        folder.path().string() + "' --families smollm2")
                           .c_str()) == 0;
  }();
  static const fs::path path = made ? folder.path() : fs::path();
  return path;
}

// Stops a job after some steps of one phase.
class StopIn final : public Progress {
 public:
  StopIn(std::string phase, int64_t steps) : phase_(std::move(phase)), left_(steps) {}
  void begin(std::string_view phase, int64_t) override { inside_ = phase == phase_; }
  void advance(int64_t steps, std::string_view) override {
    if (inside_) left_ -= steps;
  }
  void end() override { inside_ = false; }
  [[nodiscard]] bool stop_requested() const override { return inside_ && left_ <= 0; }

 private:
  std::string phase_;
  int64_t left_;
  bool inside_ = false;
};

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class CompressJob : public ::testing::Test {
 protected:
  void SetUp() override {
    if (tiny_models().empty()) GTEST_SKIP() << "python3 could not write the tiny model";
  }
  CompressRequest request(Recipe recipe, const std::string& cache) {
    CompressRequest r;
    r.model = tiny_models() / "smollm2.gguf";
    r.texts = {tiny_models() / "text.txt"};
    r.cache = folder_ / cache;
    r.output = folder_ / (cache + ".spear");
    r.recipe.recipe = recipe;
    r.recipe.budget = 0.25;
    r.recipe.self_samples = 6;
    r.recipe.real_sequences = 6;
    r.recipe.steps = 6;
    r.recipe.batch = 2;
    r.command = "spear compress smollm2";
    return r;
  }
  // The tiny model's weights are uniform: a rotation makes them normal, which costs range and gains
  // nothing.
  CompressRequest unrotated(const std::string& cache) {
    CompressRequest r = request(Recipe::kClosed, cache);
    r.recipe.keep_grid = true;
    r.recipe.quantize.rotate = false;
    return r;
  }
  CompressResult run(const CompressRequest& r) { return compress(r, *backend_, pool_, silent_); }
  Error refusal(const CompressRequest& r) {
    try {
      run(r);
    } catch (const Failure& failure) {
      return failure.error();
    }
    return {ErrorCode::kInternal, "was not refused"};
  }

  test::TemporaryDirectory folder_;
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  SilentProgress silent_;
};

TEST_F(CompressJob, ClosedFormsLowerTheKlWithinTheBudget) {
  const CompressRequest r = unrotated("a");
  const CompressResult result = run(r);
  EXPECT_LT(result.final_kl, result.plain_kl);
  EXPECT_GT(result.compensated, 0);
  EXPECT_LE(result.extra_share(), 0.25 + 1e-9);
  EXPECT_GT(result.extra_share(), 0.15) << "the budget was hardly spent";
  const ModelFile file = value_or_throw(load_model(r.output));
  EXPECT_EQ(count_bytes(file.model).total(), result.file_bytes);
  EXPECT_FALSE(file.texts.tokenizer.empty());
  const Json provenance = value_or_throw(parse_json(file.texts.provenance, "provenance"));
  EXPECT_EQ(provenance.at("command"), "spear compress smollm2");
  EXPECT_EQ(provenance.at("calibration").at("texts").at(0).at("name"), "text.txt");
  const std::string first = bytes_of(r.output);
  run(r);
  EXPECT_EQ(bytes_of(r.output), first) << "the same request gave other bytes";
}

TEST_F(CompressJob, InterruptedAnywhereItEndsWithTheBytesOfAnUninterruptedRun) {
  const CompressRequest whole = request(Recipe::kFast, "whole");
  const CompressResult result = run(whole);
  EXPECT_EQ(result.training.stages.size(), 1u);
  CompressRequest parts = request(Recipe::kFast, "parts");
  for (const char* phase :
       {"covariances", "reference states", "training", "compensators one by one"}) {
    StopIn stopping(phase, 1);
    try {
      compress(parts, *backend_, pool_, stopping);
      FAIL() << "was not stopped in " << phase;
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.error().code, ErrorCode::kInterrupted) << failure.what();
      EXPECT_FALSE(fs::exists(parts.output));
    }
  }
  run(parts);
  EXPECT_EQ(bytes_of(parts.output), bytes_of(whole.output));
}

TEST_F(CompressJob, OtherMetricsOfClosedFormsAreSaidAndKeptApart) {
  const double exact = run(unrotated("metrics")).final_kl;
  for (const auto& [metric, name] :
       {std::pair(FactorMetric::kPlain, "plain"), std::pair(FactorMetric::kDiagonal, "diagonal")}) {
    CompressRequest r = unrotated("metrics");
    r.recipe.metric = metric;
    const CompressResult result = run(r);
    EXPECT_LT(result.final_kl, result.plain_kl);
    EXPECT_NE(result.final_kl, exact);
    const std::string provenance = value_or_throw(load_model(r.output)).texts.provenance;
    EXPECT_NE(provenance.find("\"metric\":\"" + std::string(name)), std::string::npos);
  }
}

TEST_F(CompressJob, KeepsACertificateByWhatItMeasures) {
  CompressRequest r = unrotated("certified");
  int measured = 0;
  r.certify = [&](const DenseModel&, const QuantizedModel&, const Tokenizer&, Progress&) {
    return "{\"measured\": " + std::to_string(++measured) + "}";
  };
  run(r);
  run(r);
  EXPECT_EQ(value_or_throw(load_model(r.output)).texts.certificate, "{\"measured\": 1}");
  r.certificate = "full";
  run(r);
  EXPECT_EQ(value_or_throw(load_model(r.output)).texts.certificate, "{\"measured\": 2}");
}

TEST_F(CompressJob, TrainedParametersApplyToARebuiltBaseAndToNoOther) {
  CompressRequest trained = request(Recipe::kFast, "trained");
  trained.export_parameters = folder_ / "parameters";
  run(trained);
  EXPECT_LT(fs::file_size(trained.export_parameters), fs::file_size(trained.output));
  CompressRequest applied = request(Recipe::kFast, "applied");
  applied.apply_parameters = trained.export_parameters;
  run(applied);
  const ModelFile a = value_or_throw(load_model(trained.output));
  const ModelFile b = value_or_throw(load_model(applied.output));
  ASSERT_EQ(a.artifact->tensors().size(), b.artifact->tensors().size());
  for (size_t i = 0; i < a.artifact->tensors().size(); ++i) {
    const ArtifactTensor& x = a.artifact->tensors()[i];
    const ArtifactTensor& y = b.artifact->tensors()[i];
    ASSERT_EQ(x.name, y.name);
    EXPECT_TRUE(std::ranges::equal(x.bytes, y.bytes)) << x.name;
  }
  CompressRequest other = request(Recipe::kFast, "other");
  other.recipe.seed = 2;
  other.apply_parameters = trained.export_parameters;
  const Error error = refusal(other);
  EXPECT_EQ(error.code, ErrorCode::kUsage);
  EXPECT_NE(error.message.find("made for a base with hash"), std::string::npos) << error.message;
}

TEST_F(CompressJob, DamagedParametersAreRefusedAndTheModelStaysWhole) {
  CompressRequest trained = request(Recipe::kClosed, "closed");
  trained.export_parameters = folder_ / "parameters";
  run(trained);
  ModelFile file = value_or_throw(load_model(trained.output));
  const std::string good = bytes_of(trained.export_parameters);
  for (size_t at = 0; at < good.size(); at += good.size() / 23) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    const Result<std::string> applied = apply_parameters(folder_.file("bad", bad), file.model);
    ASSERT_FALSE(applied.has_value()) << at;
    EXPECT_EQ(applied.error().code, ErrorCode::kBadFile) << applied.error().message;
  }
  const auto own = apply_parameters(trained.output, file.model);
  ASSERT_FALSE(own.has_value());
  EXPECT_NE(own.error().message.find("no file of trained parameters"), std::string::npos);
  EXPECT_TRUE(apply_parameters(trained.export_parameters, file.model).has_value());
}

TEST_F(CompressJob, ThePapersRecipeChoosesModulesByDamageAndGatesThem) {
  CompressRequest r = request(Recipe::kPaper, "paper");
  r.recipe.budget = 0.6;
  const CompressResult result = run(r);
  EXPECT_EQ(result.training.stages.size(), 2u);
  EXPECT_EQ(result.plan.quantize.rotate, false);
  const ModelFile file = value_or_throw(load_model(r.output));
  EXPECT_FALSE(file.texts.diagnosis.empty());
  int64_t gated = 0;
  for (const QuantizedLayer& layer : file.model.layers)
    for (const QuantizedLinear& linear : layer.linears)
      if (linear.compensator) {
        EXPECT_EQ(linear.compensator->gate_hidden, 4 * linear.compensator->rank);
        ++gated;
      }
  EXPECT_EQ(gated, result.compensated);
  EXPECT_GE(gated, 14 * 15 / 100);
  EXPECT_LE(gated, 14 * 60 / 100);
}

TEST_F(CompressJob, ATargetIsReachedByTheSmallestFileOrNotAtAll) {
  CompressRequest r = unrotated("target");
  r.target_gap = 0.05;
  const CompressResult result = run(r);
  EXPECT_GE(result.gap_closed(), 0.05);
  r.target_gap = 0.9999;
  const Error error = refusal(r);
  EXPECT_EQ(error.code, ErrorCode::kBudget);
  EXPECT_NE(error.message.find("no file tried reaches it"), std::string::npos);
}

TEST_F(CompressJob, RefusesWhatCannotBe) {
  CompressRequest r = request(Recipe::kClosed, "bad");
  r.recipe.budget = 1e-5;
  EXPECT_EQ(refusal(r).code, ErrorCode::kBudget);
  r = request(Recipe::kClosed, "bad");
  r.recipe.bits = 3.5;
  EXPECT_EQ(refusal(r).code, ErrorCode::kBudget);
  r = request(Recipe::kClosed, "bad");
  r.texts = {tiny_models() / "short.txt"};
  EXPECT_EQ(refusal(r).code, ErrorCode::kUsage);
  r.texts = {tiny_models() / "absent.txt"};
  EXPECT_EQ(refusal(r).code, ErrorCode::kNotFound);
  r = request(Recipe::kClosed, "bad");
  r.target_gap = 1.5;
  EXPECT_EQ(refusal(r).code, ErrorCode::kUsage);
  r = request(Recipe::kClosed, "bad");
  r.model = folder_ / "nowhere.gguf";
  EXPECT_EQ(refusal(r).code, ErrorCode::kNotFound);
  EXPECT_FALSE(fs::exists(r.output));
}

TEST(Recipes, SpendBitsOnGroupsFirst) {
  ModelConfig config;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 30;
  config.num_attention_heads = 9;
  config.num_key_value_heads = 3;
  config.head_dim = 64;
  config.vocab_size = 49152;
  config.tie_word_embeddings = true;
  RecipeOptions options;
  options.recipe = Recipe::kBest;
  options.bits = 4.5;
  const RecipePlan plan = value_or_throw(plan_recipe(options, config));
  EXPECT_EQ(plan.quantize.group, 64);  // 16 + 4 bits of scale and zero point for 64 weights
  EXPECT_NEAR(stored_bits(config, plan.extra_bytes), 4.5 - 4 - 20.0 / 64, 1e-6);
  options.bits = 0;
  const RecipePlan one_percent = value_or_throw(plan_recipe(options, config));
  EXPECT_EQ(one_percent.quantize.group, 0);
  const size_t zeros = 155520 / 2;  // half a byte more for each row
  EXPECT_EQ(one_percent.extra_bytes + zeros,
            static_cast<size_t>(0.01 * static_cast<double>(plain_w4_bytes(config))));
}

}  // namespace
}  // namespace spear
