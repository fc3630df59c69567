#include "spear/eval/evaluate.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/base/json.h"
#include "spear/base/rng.h"

#include "eval/naive.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using test::TemporaryDirectory;

// Letters to ids below 48; what real tokenizers do does not matter here.
std::vector<int32_t> letter_ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c) % 47);
  return ids;
}

std::string random_letters(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += static_cast<char>('a' + rng.below(26));
  return text;
}

class Evaluate : public ::testing::Test {
 protected:
  Evaluate() {
    options_.texts = {{folder_.file("book.txt", random_letters(1000, 1)).string(), {64, false, 0}},
                      {folder_.file("book.txt", random_letters(1000, 1)).string(), {32, true, 0}}};
    std::string quiz;
    for (uint64_t i = 0; i < 20; ++i)
      quiz += R"({"context": ")" + random_letters(10, i) + R"(", "choices": [")" +
              random_letters(4, i + 100) + R"(", ")" + random_letters(7, i + 200) +
              R"("], "answer": )" + std::to_string(i % 2) + "}\n";
    options_.choice_files = {folder_.file("quiz.jsonl", quiz)};
    options_.last_word_files = {
        folder_.file("words.jsonl", "{\"text\": \"aa bb cc\"}\n{\"text\": \"dd e\"}\n")};
    options_.reference_compute = Compute::kF32;
    options_.model_compute = Compute::kF32;
  }

  EvalResult run(const EvalOptions& options) {
    const CompressedModel models[] = {{"four.spear", &four_, "four"}, {"eight.spear", &eight_, ""}};
    return evaluate(*backend_, encoder_, {"tiny", &dense_}, models, options, silent_);
  }
  std::string refusal(const EvalOptions& options) {
    try {
      run(options);
    } catch (const Failure& failure) {
      return failure.error().message;
    }
    return "accepted";
  }

  TemporaryDirectory folder_;
  test::TestBackend backend_;
  DenseModel dense_ = test::tiny_model();
  QuantizedModel four_ = test::tiny_quantized(dense_, 4);
  QuantizedModel eight_ = test::tiny_quantized(dense_, 8);
  TextEncoder encoder_{letter_ids, -1, 0};
  EvalOptions options_;
  SilentProgress silent_;
};

TEST_F(Evaluate, PerplexityIsThatOfTheNaiveLoop) {
  const EvalResult result = run(options_);
  Decoder teacher(*backend_, dense_, Compute::kF32);
  Decoder student(*backend_, four_, Compute::kF32);
  const std::vector<int32_t> ids = letter_ids(random_letters(1000, 1));
  double nll = 0;
  double kl = 0;
  int64_t count = 0;
  for (size_t begin = 0; begin + 64 <= ids.size(); begin += 64) {
    const auto window = std::span(ids).subspan(begin, 64);
    const auto p = test::log_probabilities(teacher, window);
    const auto q = test::log_probabilities(student, window);
    for (size_t i = 0; i + 1 < 64; ++i, ++count) {
      nll -= p[i][static_cast<size_t>(window[i + 1])];
      kl += test::kl_of(p[i], q[i]);
    }
  }
  const TextResult& reference = result.reference.texts.front();
  const TextResult& model = result.models.front().texts.front();
  EXPECT_EQ(reference.name, "book@64");
  EXPECT_EQ(reference.tokens, 1000);
  EXPECT_EQ(reference.windows, 15);
  EXPECT_EQ(reference.scored, count);
  EXPECT_NEAR(std::log(reference.perplexity), nll / static_cast<double>(count), 1e-5);
  EXPECT_FALSE(reference.divergence);
  ASSERT_TRUE(model.divergence);
  EXPECT_NEAR(model.divergence->kl.mean, kl / static_cast<double>(count), 1e-5);
  EXPECT_NEAR(model.divergence->log_ratio.mean, std::log(model.perplexity / reference.perplexity),
              1e-6);
}

TEST_F(Evaluate, TasksAreThoseOfTheNaiveLoop) {
  const EvalResult result = run(options_);
  ASSERT_EQ(result.reference.tasks.size(), 2u);
  Decoder teacher(*backend_, dense_, Compute::kF32);
  int64_t right = 0;
  int64_t right_norm = 0;
  for (uint64_t i = 0; i < 20; ++i) {
    const std::string context = random_letters(10, i);
    double scores[2] = {};
    const std::string answers[2] = {random_letters(4, i + 100), random_letters(7, i + 200)};
    for (int j = 0; j < 2; ++j) {
      const auto ids = letter_ids(context + " " + answers[j]);
      const auto rows = test::log_probabilities(teacher, ids);
      for (size_t p = context.size(); p < ids.size(); ++p)
        scores[j] += rows[p - 1][static_cast<size_t>(ids[p])];
    }
    right += (scores[1] > scores[0]) == (i % 2 == 1) ? 1 : 0;
    right_norm += (scores[1] / 7 > scores[0] / 4) == (i % 2 == 1) ? 1 : 0;
  }
  const TaskResult& quiz = result.reference.tasks[0];
  EXPECT_EQ(quiz.name, "quiz");
  EXPECT_EQ(quiz.n, 20);
  EXPECT_DOUBLE_EQ(quiz.accuracy, static_cast<double>(right) / 20);
  EXPECT_DOUBLE_EQ(*quiz.accuracy_norm, static_cast<double>(right_norm) / 20);
  EXPECT_NEAR(quiz.accuracy_stderr, std::sqrt(quiz.accuracy * (1 - quiz.accuracy) / 19), 1e-12);
  const TaskResult& words = result.reference.tasks[1];
  EXPECT_EQ(words.kind, TaskKind::kLastWord);
  EXPECT_EQ(words.n, 2);
  EXPECT_TRUE(words.perplexity);
  EXPECT_TRUE(result.models[0].tasks[0].answers_changed);
}

TEST_F(Evaluate, CachedResultsAreTheSame) {
  EvalOptions cached = options_;
  cached.cache_folder = folder_ / "cache";
  const std::string plain = to_json_text(run(options_));
  EXPECT_EQ(to_json_text(run(cached)), plain);
  EXPECT_EQ(to_json_text(run(cached)), plain);
  cached.cache_limit = 0;
  EXPECT_EQ(to_json_text(run(cached)), plain);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "cache"));
}

TEST_F(Evaluate, JsonHasTheDocumentedShapeAndComesBack) {
  const EvalResult result = run(options_);
  const std::string text = to_json_text(result);
  const Json json = value_or_throw(parse_json(text, "result"));
  for (const char* key : {"reference", "models"}) EXPECT_TRUE(json.contains(key));
  const Json& model = json["models"][0];
  EXPECT_EQ(model["path"], "four.spear");
  for (const char* key : {"total", "weights", "scales", "compensators", "embedding"})
    EXPECT_TRUE(model["bytes"][key].is_number_unsigned()) << key;
  EXPECT_TRUE(model["bits_per_weight"].is_number());
  for (const char* key :
       {"tokens", "perplexity", "kl_mean", "kl_median", "kl_p99", "top1_agreement"})
    EXPECT_TRUE(model["texts"]["book@32h"][key].is_number()) << key;
  for (const char* key : {"accuracy", "accuracy_norm", "stderr", "n"})
    EXPECT_TRUE(model["tasks"]["quiz"][key].is_number()) << key;
  const auto back = eval_result_from_json_text(text, "result.json");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json_text(*back), text);
}

TEST_F(Evaluate, BytesAddUpAndGiveBitsPerWeight) {
  const ByteParts parts = bytes_of(four_);
  EXPECT_EQ(parts.total, parts.weights + parts.scales + parts.zeros + parts.compensators +
                             parts.biases + parts.norms + parts.embedding + parts.head +
                             parts.other);
  EXPECT_DOUBLE_EQ(bits_per_weight(dense_), 32);
  int64_t weights = 0;
  int64_t rows = 0;
  for (const Module module : kModules) {
    weights += out_features(dense_.config, module) * in_features(dense_.config, module);
    rows += out_features(dense_.config, module);
  }
  // 4-bit codes, an F16 scale and an F16 zero a row.
  EXPECT_DOUBLE_EQ(bits_per_weight(four_),
                   4 + 32 * static_cast<double>(rows) / static_cast<double>(weights));
}

TEST_F(Evaluate, QuickIsMarkedAndSmaller) {
  EvalOptions quick = options_;
  quick.quick = true;
  const EvalResult result = run(quick);
  EXPECT_TRUE(result.quick);
  EXPECT_EQ(result.reference.tasks[0].n, 3);
  EXPECT_NE(to_table(result).find("QUICK"), std::string::npos);
  EXPECT_EQ(to_table(run(options_)).find("QUICK"), std::string::npos);
}

TEST_F(Evaluate, RefusesBadInputInOneSentence) {
  EvalOptions options = options_;
  options.texts = {{"/no/such/text.txt", {}}};
  EXPECT_NE(refusal(options).find("/no/such/text.txt"), std::string::npos);
  options.texts = {{folder_.file("one.txt", "a").string(), {64, false, 0}}};
  EXPECT_NE(refusal(options).find("do not fill one window"), std::string::npos);
  options.texts = {{folder_.file("empty.txt", "").string(), {64, false, 0}}};
  EXPECT_NE(refusal(options).find("empty"), std::string::npos);
  options.texts = {options_.texts[0], options_.texts[0]};
  EXPECT_NE(refusal(options).find("book@64"), std::string::npos);
  options.texts = {options_.texts[0]};
  options.texts[0].protocol.context = 4096;
  EXPECT_NE(refusal(options).find("at most 128"), std::string::npos);

  options = options_;
  options.choice_files = {folder_.file(
      "long.jsonl",
      R"({"context": ")" + random_letters(200, 1) + R"(", "choices": ["a", "b"], "answer": 0})")};
  EXPECT_NE(refusal(options).find("long.jsonl line 1: 202 tokens"), std::string::npos);
  options = options_;
  options.tasks = {"piqa"};
  options.data_folder = folder_.path();
  EXPECT_NE(refusal(options).find("piqa"), std::string::npos);
  encoder_.encode = [](std::string_view text) { return std::vector<int32_t>(text.size(), 48); };
  EXPECT_NE(refusal(options_).find("belongs to another model"), std::string::npos);
}

TEST_F(Evaluate, RefusesAModelOfAnotherVocabulary) {
  four_.config.vocab_size = 40;
  EXPECT_NE(refusal(options_).find("vocabulary of 40"), std::string::npos);
}

TEST(EvalJson, RefusesWhatIsNotAResult) {
  for (const char* text : {"", "{}", "[]", "{\"version\": 1}", "{\"version\": \"x\"}",
                           R"({"version": 99, "quick": false, "backend": "", "reference_states": "",
                               "reference": {}, "models": []})",
                           R"({"version": 1, "quick": false, "backend": "", "reference_states": "",
                               "reference": {}, "models": []})",
                           R"({"version": 1, "quick": false, "backend": "", "reference_states": "",
                               "reference": 3, "models": {}})"}) {
    const auto result = eval_result_from_json_text(text, "some.json");
    ASSERT_FALSE(result) << text;
    EXPECT_NE(result.error().message.find("some.json"), std::string::npos)
        << result.error().message;
  }
}

}  // namespace
}  // namespace spear
