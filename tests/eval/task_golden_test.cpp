// The three tasks, from files in their formats to accuracies, against an independent computation:
// tests/golden/make_task_goldens.py (a tiny model in numpy, ids by the package `tokenizers`).
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/thread_pool.h"
#include "spear/eval/evaluate.h"
#include "spear/eval/text_encoder.h"
#include "spear/model/checkpoint.h"
#include "spear/model/import_tokenizer.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

const std::filesystem::path kSource = SPEAR_SOURCE_DIR;
const std::filesystem::path kGolden = kSource / "tests/golden/tasks";

class TaskGolden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string command = "python3 '" + (kSource / "tools/make_tiny_model.py").string() +
                                "' '" + folder_.path().string() + "' --families smollm2";
    if (std::system(command.c_str()) != 0) GTEST_SKIP() << "python3 could not write the tiny model";
    const Checkpoint checkpoint = value_or_throw(Checkpoint::open(folder_.path() / "smollm2"));
    encoder_ = text_encoder(value_or_throw(load_tokenizer(checkpoint)));
    model_ = load_dense(checkpoint, DType::kF32, pool_, silent_);
  }

  test::TemporaryDirectory folder_;
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  SilentProgress silent_;
  TextEncoder encoder_;
  DenseModel model_;
};

// FP32 against FP64: a log likelihood here is a sum of at most some hundred terms of order ten,
// each within 2e-4 of the FP64 model (tests/model/golden_logits_test.cpp); a token more or less
// moves it by several units.
constexpr double kTolerance = 0.02;

TEST_P(TaskGolden, ScoresAreThoseOfTheIndependentComputation) {
  const auto path = kGolden / "scores.json";
  const Json golden =
      value_or_throw(parse_json(value_or_throw(read_text_file(path)), path.string()))
          .at(GetParam());
  const TaskSet set = value_or_throw(load_known_task(GetParam(), kGolden));
  const EncodedTask task = value_or_throw(encode_task(set, encoder_, model_.config));
  Decoder decoder(*backend_, model_, Compute::kF32);
  const TaskScores scores =
      score_task(decoder, {"tiny", "", Compute::kF32}, task, ScoringOptions(), silent_);
  const Json& expected = golden.at("log_likelihoods");
  ASSERT_EQ(scores.size(), expected.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    ASSERT_EQ(scores[i].size(), expected[i].size()) << i;
    for (size_t j = 0; j < scores[i].size(); ++j)
      EXPECT_NEAR(scores[i][j].log_likelihood, expected[i][j].get<double>(), kTolerance)
          << "question " << i << ", choice " << j;
  }
}

TEST_P(TaskGolden, AccuraciesAreThoseOfTheIndependentComputation) {
  const auto path = kGolden / "scores.json";
  const Json golden =
      value_or_throw(parse_json(value_or_throw(read_text_file(path)), path.string()))
          .at(GetParam());
  EvalOptions options;
  options.tasks = {GetParam()};
  options.data_folder = kGolden;
  options.reference_compute = Compute::kF32;
  const EvalResult result = evaluate(*backend_, encoder_, {"tiny", &model_}, {}, options, silent_);
  ASSERT_EQ(result.reference.tasks.size(), 1u);
  const TaskResult& task = result.reference.tasks[0];
  EXPECT_EQ(task.name, GetParam());
  EXPECT_EQ(task.n, golden.at("n").get<int64_t>());
  EXPECT_NEAR(task.accuracy, golden.at("accuracy").get<double>(), 1e-12);
  ASSERT_TRUE(task.accuracy_norm);
  EXPECT_NEAR(*task.accuracy_norm, golden.at("accuracy_norm").get<double>(), 1e-12);
  EXPECT_NEAR(task.accuracy_stderr, golden.at("stderr").get<double>(), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Tasks, TaskGolden, ::testing::Values("piqa", "arc_easy", "winogrande"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace spear
