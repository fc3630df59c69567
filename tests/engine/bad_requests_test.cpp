// What the engine refuses: one sentence that names the field, and nobody else is disturbed.
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "spear/engine/engine.h"

#include "engine/byte_tokenizer.h"
#include "engine/collector.h"
#include "engine/scripted_model.h"

namespace spear {
namespace {

using test::ask;
using test::greedy;
using test::read_all;
using test::ScriptedModel;
using test::small_options;

constexpr int64_t kVocab = 50;

class BadRequests : public testing::Test {
 protected:
  void SetUp() override {
    beside_ = std::make_shared<TokenStream>();
    beside_admission_ = engine_.submit(greedy({1, 2, 3}, 60), beside_);
  }
  void TearDown() override {
    const test::Outcome outcome = read_all(beside_admission_, *beside_);
    EXPECT_EQ(outcome.only().tokens.size(), 60U) << "the request beside it was harmed";
    EXPECT_TRUE(engine_.drain(10));
    EXPECT_EQ(engine_.stats().used_pages, 0);
  }
  void expect_refused(const Request& request, AdmissionCode code, const std::string& words) {
    const test::Outcome outcome = ask(engine_, request);
    EXPECT_EQ(outcome.admission.code, code) << words;
    EXPECT_NE(outcome.admission.message.find(words), std::string::npos)
        << outcome.admission.message;
  }
  template <class Change>
  void expect_invalid(Change change, const std::string& words) {
    Request request = greedy({1, 2, 3}, 4);
    change(request);
    expect_refused(request, AdmissionCode::kInvalid, words);
  }

  ScriptedModel model_{kVocab, 32};
  Engine engine_{model_, nullptr, small_options()};
  std::shared_ptr<TokenStream> beside_;
  Admission beside_admission_;
};

TEST_F(BadRequests, AnEmptyPrompt) {
  expect_invalid([](Request& r) { r.prompt.clear(); }, "prompt: at least one token expected");
}

TEST_F(BadRequests, TokensOutsideTheVocabulary) {
  expect_invalid([](Request& r) { r.prompt = {1, 50}; }, "prompt: token ids 0 to 49 expected");
  expect_invalid([](Request& r) { r.prompt = {-1}; }, "found -1");
  expect_invalid([](Request& r) { r.stop_ids = {99}; }, "stop_token_ids");
  expect_invalid([](Request& r) { r.sampling.logit_bias = {{77, 1.0f}}; }, "logit_bias");
}

TEST_F(BadRequests, APromptAsLongAsTheContext) {
  const std::vector<int32_t> full(64, 1), longer(65, 1);
  expect_refused(greedy(full, 1), AdmissionCode::kTooLong, "the prompt has 64 tokens");
  expect_refused(greedy(longer, 1), AdmissionCode::kTooLong, "the context 64");
  expect_refused(greedy(longer, 0), AdmissionCode::kTooLong, "65 tokens");
  expect_refused(greedy({1, 2}, 63), AdmissionCode::kTooLong, "the answer may have 63");
  expect_refused(greedy({1, 2}, std::numeric_limits<int64_t>::max()), AdmissionCode::kTooLong,
                 "the context of 64");
}

TEST_F(BadRequests, SamplingValuesOutOfRange) {
  const double nan = std::nan("");
  const double infinity = std::numeric_limits<double>::infinity();
  using S = SamplingParams;
  struct Case {
    double S::*field;
    const char* name;
    std::vector<double> values;
  };
  const Case cases[] = {
      {&S::temperature, "temperature", {-0.1, 100.5, nan, infinity}},
      {&S::top_p, "top_p", {0, -1, 1.01, nan}},
      {&S::min_p, "min_p", {-0.1, 1, nan}},
      {&S::typical_p, "typical_p", {0, 1.5, nan}},
      {&S::repetition_penalty, "repetition_penalty", {0, -1, 11, nan}},
      {&S::presence_penalty, "presence_penalty", {-2.1, 2.1, nan}},
      {&S::frequency_penalty, "frequency_penalty", {-2.1, 2.1, nan}},
  };
  for (const Case& c : cases)
    for (const double value : c.values)
      expect_invalid([&](Request& r) { r.sampling.*c.field = value; }, std::string(c.name) + ":");
  expect_invalid([](Request& r) { r.sampling.top_k = -1; }, "top_k:");
  expect_invalid([](Request& r) { r.sampling.logit_bias = {{1, 101.0f}}; }, "logit_bias:");
  expect_invalid([](Request& r) { r.sampling.logit_bias.assign(1025, {1, 0.0f}); }, "at most 1024");
}

TEST_F(BadRequests, CountsOutOfRange) {
  expect_invalid([](Request& r) { r.max_tokens = -1; }, "max_tokens");
  expect_invalid([](Request& r) { r.min_tokens = 5; }, "min_tokens");
  expect_invalid([](Request& r) { r.n = 0; }, "n: 1 to 4 expected");
  expect_invalid([](Request& r) { r.n = 1000000; }, "found 1000000");
  expect_invalid(
      [](Request& r) {
        r.n = 3;
        r.best_of = 2;
      },
      "best_of");
  expect_invalid([](Request& r) { r.logprobs = 21; }, "logprobs");
  expect_invalid([](Request& r) { r.prompt_logprobs = -2; }, "prompt_logprobs");
  expect_invalid([](Request& r) { r.itl_objective = -1; }, "itl_objective");
  expect_invalid([](Request& r) { r.ttft_objective = std::nan(""); }, "ttft_objective");
}

TEST_F(BadRequests, StopStrings) {
  expect_invalid([](Request& r) { r.stop = {""}; }, "stop: strings of 1 to 256 bytes");
  expect_invalid([](Request& r) { r.stop = {std::string(257, 'x')}; }, "found one of 257");
  expect_invalid([](Request& r) { r.stop.assign(17, "x"); }, "at most 16 strings");
  expect_invalid([](Request& r) { r.stop = {"\xff"}; }, "UTF-8");
  expect_invalid([](Request& r) { r.stop = {"x"}; }, "need a tokenizer");
}

template <class Make>
std::string failure_of(Make make) {
  try {
    make();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kUsage);
    return failure.error().message;
  }
  return "";
}

TEST(BadEngines, AreRefusedWithTheirNumbers) {
  ScriptedModel model(kVocab, 8, 4, 128);  // 32 tokens of cache, positions for 128
  const auto with = [&](auto change) {
    return failure_of([&] {
      EngineOptions options = small_options();
      options.max_context = 0;
      change(options);
      const Engine engine(model, nullptr, options);
    });
  };
  EXPECT_EQ(with([](EngineOptions&) {}), "");
  EXPECT_NE(with([](EngineOptions& o) { o.max_context = 129; }).find("at most 128"),
            std::string::npos);
  EXPECT_NE(with([](EngineOptions& o) { o.max_context = 40; }).find("8 pages hold 32 tokens"),
            std::string::npos);
  EXPECT_NE(with([](EngineOptions& o) { o.token_budget = 5; }).find("at least 8"),
            std::string::npos);
  EXPECT_NE(with([](EngineOptions& o) { o.max_running = 0; }), "");
  EXPECT_NE(with([](EngineOptions& o) { o.max_draft = 65; }), "");
}

}  // namespace
}  // namespace spear
