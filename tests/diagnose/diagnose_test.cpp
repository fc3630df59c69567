#include <cmath>
#include <memory>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/thread_pool.h"
#include "spear/diagnose/cka.h"
#include "spear/diagnose/damage_report.h"

#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

class Interrupting final : public Progress {
 public:
  explicit Interrupting(int after) : left_(after) {}
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t, std::string_view note) override {
    if (!note.empty()) --left_;
  }
  void end() override {}
  [[nodiscard]] bool stop_requested() const override { return left_ <= 0; }

 private:
  int left_;
};

class DiagnoseTest : public ::testing::Test {
 protected:
  // A module's weight with each value moved by up to a tenth: which one is known, so are the
  // effects.
  HostTensor damaged(const ModuleId& id) {
    ++calls_;
    HostTensor weight =
        model_.layers[static_cast<size_t>(id.layer)].linear(id.module).weight.clone();
    float turn = 0;
    for (float& value : weight.as<float>())
      value += 0.1f * std::sin(turn += 1.7f + static_cast<float>(id.index()));
    return weight;
  }
  DamageReport run(const DiagnoseOptions& options, Progress& progress) {
    Decoder decoder(*backend_, model_, Compute::kF32);
    DamageReport report;
    report.model_hash = "m";
    report.quantizer = "moved";
    diagnose(
        decoder, tokens_, [&](const ModuleId& id) { return damaged(id); }, options, pool_, progress,
        report);
    return report;
  }
  // Final hidden states and logits of the whole model with one weight replaced, no restart
  // anywhere.
  std::vector<float> hidden_with(const ModuleId* id) {
    DenseModel copy = test::tiny_model({.tied = false, .attention_bias = true});
    if (id != nullptr)
      copy.layers[static_cast<size_t>(id->layer)].linear(id->module).weight = damaged(*id);
    Decoder decoder(*backend_, copy, Compute::kF32);
    const auto width = static_cast<size_t>(copy.config.hidden_size);
    std::vector<float> out;
    for (int64_t s = 0; s < tokens_.count; ++s) {
      KvCache cache(*backend_, copy.config, 1, tokens_.length, false);
      const AttentionSequence rows = cache.append(0, 0, tokens_.length);
      std::vector<float> hidden(static_cast<size_t>(tokens_.length) * width);
      decoder.forward({tokens_.row(s), {&rows, 1}}, cache, hidden.data());
      out.insert(out.end(), hidden.begin(), hidden.end());
    }
    return out;
  }
  std::vector<double> log_probabilities(const float* hidden) {
    Decoder decoder(*backend_, model_, Compute::kF32);
    std::vector<float> logits(static_cast<size_t>(model_.config.vocab_size));
    decoder.logits(hidden, 1, logits.data());
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l));
    std::vector<double> out;
    for (const float l : logits) out.push_back(static_cast<double>(l) - std::log(sum));
    return out;
  }

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  DenseModel model_ = test::tiny_model({.tied = false, .attention_bias = true});
  TokenSequences tokens_ = [] {
    TokenSequences t{5, 12, {}};
    for (int32_t i = 0; i < 60; ++i) t.ids.push_back(i * i * 7 % 48);
    return t;
  }();
  int calls_ = 0;
};

TEST_F(DiagnoseTest, RestartingGivesWhatRunningEverythingGives) {
  SilentProgress silent;
  DiagnoseOptions options;
  options.kl_stride = 3;
  options.batch = 2;
  const DamageReport report = run(options, silent);
  ASSERT_EQ(report.modules.size(), 14u);
  EXPECT_LT(report.noise_floor, 1e-6);
  const std::vector<float> reference = hidden_with(nullptr);
  const auto width = model_.config.hidden_size;
  const CkaReference cka(reference.data(), 60, width, pool_);
  for (const ModuleDamage& module : report.modules) {
    const std::vector<float> hidden = hidden_with(&module.id);
    EXPECT_NEAR(module.cka, cka.damage(hidden.data()), 1e-5) << name_of(module.id);
    double kl = 0;
    for (int64_t t = 0; t < 60; t += 3) {
      const std::vector<double> p = log_probabilities(reference.data() + t * width);
      const std::vector<double> q = log_probabilities(hidden.data() + t * width);
      for (size_t v = 0; v < p.size(); ++v) kl += std::exp(p[v]) * (p[v] - q[v]) / 20;
    }
    EXPECT_NEAR(module.kl, kl, 1e-5 + 1e-3 * kl) << name_of(module.id);
    EXPECT_GT(module.cka, 1e-5) << name_of(module.id);
  }
}

TEST_F(DiagnoseTest, LeavesTheDecoderAsItWas) {
  Decoder decoder(*backend_, model_, Compute::kF32);
  SilentProgress silent;
  DamageReport first, second;
  const auto quantize = [&](const ModuleId& id) { return damaged(id); };
  diagnose(decoder, tokens_, quantize, {}, pool_, silent, first);
  diagnose(decoder, tokens_, quantize, {}, pool_, silent, second);
  EXPECT_EQ(to_json_text(first), to_json_text(second));
}

TEST_F(DiagnoseTest, GoesOnWhereItWasStopped) {
  const test::TemporaryDirectory folder;
  DiagnoseOptions options;
  options.state_file = folder.path() / "state.json";
  Interrupting stopping(9);
  EXPECT_THROW(run(options, stopping), Failure);
  EXPECT_EQ(calls_, 9);
  calls_ = 0;
  SilentProgress silent;
  const DamageReport resumed = run(options, silent);
  EXPECT_EQ(calls_, 7);  // whole layers are kept: seven of the nine
  EXPECT_EQ(to_json_text(resumed), to_json_text(run({}, silent)));
}

TEST_F(DiagnoseTest, AStateOfOtherTokensIsNotUsed) {
  const test::TemporaryDirectory folder;
  DiagnoseOptions options;
  options.state_file = folder.path() / "state.json";
  SilentProgress silent;
  run(options, silent);
  calls_ = 0;
  tokens_.ids[3] = 1;
  run(options, silent);
  EXPECT_EQ(calls_, 14);
}

TEST(DamageReport, SurvivesItsJsonAndRefusesADamagedOne) {
  DamageReport report;
  report.model = "tiny";
  report.noise_floor = 1e-7;
  for (int32_t i = 0; i < 7; ++i)
    report.modules.push_back({{0, kModules[static_cast<size_t>(i)]}, 0.01 * i, 0.1 * i});
  const std::string text = to_json_text(report);
  EXPECT_EQ(to_json_text(value_or_throw(damage_report_from_json_text(text, "d.json"))), text);
  EXPECT_NE(to_table(report).find("layers.0.mlp.down_proj"), std::string::npos);
  for (const auto& [from, to] : {std::pair("\"kl\"", "\"k\""),
                                 {"\"q\"", "\"z\""},
                                 {"\"layer\": 0", "\"layer\": 5"},
                                 {"\"modules\"", "\"m\""}}) {
    std::string damaged = text;
    damaged.replace(damaged.find(from), std::string_view(from).size(), to);
    const Result<DamageReport> result = damage_report_from_json_text(damaged, "d.json");
    ASSERT_FALSE(result.has_value()) << from;
    EXPECT_NE(result.error().message.find("d.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
