// The engine over the real decoder, on a tiny random model.
#include <algorithm>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"
#include "spear/engine/engine.h"
#include "spear/engine/model_runner.h"

#include "engine/collector.h"
#include "support/tiny_compressed.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using test::ask;
using test::ask_all;
using test::greedy;
using test::Outcome;

class DecoderModelTest : public testing::Test {
 protected:
  // Greedy by the plain way: one sequence, one slot, token by token.
  std::vector<int32_t> plain(std::vector<int32_t> text, int64_t count) {
    KvCache cache(*backend_, dense_.config, 1, std::ssize(text) + count, true);
    std::vector<float> hidden(text.size() * static_cast<size_t>(dense_.config.hidden_size));
    std::vector<float> logits(static_cast<size_t>(dense_.config.vocab_size));
    std::vector<int32_t> answer;
    std::vector<int32_t> rows = text;
    while (std::ssize(answer) < count) {
      const AttentionSequence sequence = cache.append(0, 0, std::ssize(rows));
      decoder_.forward({rows, {&sequence, 1}}, cache, hidden.data());
      decoder_.logits(hidden.data() + (std::ssize(rows) - 1) * dense_.config.hidden_size, 1,
                      logits.data());
      answer.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      rows = {answer.back()};
    }
    return answer;
  }

  std::vector<int32_t> prompt(int64_t length, uint64_t seed) const {
    Rng rng(seed);
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < length; ++i)
      tokens.push_back(
          static_cast<int32_t>(rng.below(static_cast<uint32_t>(dense_.config.vocab_size))));
    return tokens;
  }

  void expect_no_mates_seen(Decoder& decoder, ThreadPool& pool, uint64_t rounds);

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  DenseModel dense_ = test::tiny_model({.max_position_embeddings = 512});
  Decoder decoder_{*backend_, dense_, Compute::kF32};
};

TEST_F(DecoderModelTest, BatchesGiveWhatTheDecoderAloneGives) {
  DecoderModel model(decoder_, {.pages = 12});
  EngineOptions options;
  options.max_running = 6;
  options.token_budget = 100;
  options.pool = &pool_;
  options.max_draft = 4;
  options.check_invariants = true;
  Engine engine(model, nullptr, options);
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) requests.push_back(greedy(prompt(5 + 37 * (i % 5), i % 4), 40));
  const auto outcomes = ask_all(engine, requests);
  engine.drain(10);
  // Rounding differs with the batch; the random model's best two logits are rarely that close.
  int same = 0;
  for (size_t i = 0; i < requests.size(); ++i)
    same += outcomes[i].only().tokens == plain(requests[i].prompt, 40);
  EXPECT_GE(same, 11);
  EXPECT_GT(engine.stats().prefix_hits, 0);
}

// In deterministic mode a request's tokens are the same bits whoever runs beside it, whatever is
// cached, and however often it is preempted.
void DecoderModelTest::expect_no_mates_seen(Decoder& decoder, ThreadPool& pool, uint64_t rounds) {
  const auto subject = [&] {
    Request request = greedy(prompt(150, 77), 60);
    request.sampling.temperature = 1;
    request.sampling.seed = 9;
    request.logprobs = 0;
    return request;
  };
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  const std::vector<int32_t> head = subject().prompt;
  int64_t preemptions = 0, hits = 0;
  // When requests arrive decides who is preempted: further rounds until it has been seen.
  const auto seen_all = [&] { return preemptions > 0 && hits > 0; };
  for (uint64_t turn = 0; turn < rounds || (turn < rounds + 40 && !seen_all()); ++turn) {
    const uint64_t round = std::min(turn, rounds - 1);
    DecoderModel model(decoder, {.pages = round == 0 ? 16 : 7, .rows_stand_alone = true});
    EngineOptions options;
    options.max_running = 4;
    options.token_budget = 100 + 50 * static_cast<int64_t>(round);
    options.deterministic = true;
    options.max_draft = 4;
    options.pool = &pool;
    options.check_invariants = true;
    Engine engine(model, nullptr, options);
    std::vector<Request> requests;
    Rng rng(turn);
    for (uint64_t mate = 0; mate < 2 * round; ++mate) {
      requests.push_back(greedy(prompt(20 + rng.below(150), 200 + 10 * round + mate), 50));
      if (mate % 2 == 0)  // shares a head with the subject
        std::copy_n(head.begin(), 20, requests.back().prompt.begin());
      requests.back().priority = static_cast<int32_t>(rng.below(2));
    }
    if (round > 1) requests.push_back(greedy(subject().prompt, 30));
    requests.push_back(subject());
    const auto outcomes = ask_all(engine, std::move(requests));
    engine.drain(10);
    preemptions += outcomes.back().only().finish.preemptions;
    hits += outcomes.back().only().finish.cached_tokens;
    if (round == 0) {
      tokens = outcomes.back().only().tokens;
      logprobs = outcomes.back().only().logprobs;
      EXPECT_EQ(tokens.size(), 60U);
    } else {
      EXPECT_EQ(outcomes.back().only().tokens, tokens) << "round " << turn;
      EXPECT_EQ(outcomes.back().only().logprobs, logprobs) << "bit for bit, round " << turn;
    }
  }
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(hits, 0);
}

TEST_F(DecoderModelTest, DeterministicModeDoesNotSeeBatchMates) {
  expect_no_mates_seen(decoder_, pool_, 6);
}

// One thread: on a loaded machine two wait for each other at every barrier of a tiny step.
TEST_F(DecoderModelTest, NorDoesItOnTheCompiledStep) {
  ThreadPool alone(1);
  const auto backend = value_or_throw(make_cpu_backend(alone));
  const QuantizedModel model = test::tiny_compressed(
      {.model = {.hidden_size = 96, .intermediate_size = 192, .max_position_embeddings = 512},
       .rotated = true,
       .rank = 5,
       .gated = true});
  for (const DecoderPath path : {DecoderPath::kFused, DecoderPath::kFusedExact}) {
    Decoder decoder(*backend, model, Compute::kF32, path);
    ASSERT_NE(decoder.program(), nullptr) << decoder.describe();
    expect_no_mates_seen(decoder, alone, 4);
  }
}

// A bare request gets, bit for bit, what a model that never had compensators says; those beside it
// keep theirs, and a common prompt is shared among equals only.
TEST_F(DecoderModelTest, BareRequestsRunWithoutCompensatorsBesideOthersThatHaveThem) {
  ThreadPool alone(1);
  const auto backend = value_or_throw(make_cpu_backend(alone));
  const test::CompressedShape shape{.model = {.hidden_size = 96,
                                              .intermediate_size = 192,
                                              .max_position_embeddings = 512,
                                              .tied = false},
                                    .rotated = true,
                                    .rank = 5,
                                    .gated = true};
  const QuantizedModel whole = test::tiny_compressed(shape);
  QuantizedModel stripped = test::tiny_compressed(shape);
  for (QuantizedLayer& layer : stripped.layers)
    for (QuantizedLinear& linear : layer.linears) linear.compensator.reset();
  const auto answers = [&](const QuantizedModel& model, const std::vector<bool>& bare) {
    Decoder decoder(*backend, model, Compute::kF32, DecoderPath::kFused);
    DecoderModel runner(decoder, {.pages = 32});
    EngineOptions options;
    options.max_running = 8;
    options.deterministic = true;
    options.check_invariants = true;
    Engine engine(runner, nullptr, options);
    std::vector<Request> requests;
    for (size_t i = 0; i < bare.size(); ++i) {
      requests.push_back(greedy(prompt(150, 7 + i / 2), 40));
      requests.back().logprobs = 0;
      requests.back().bare = bare[i];
    }
    return ask_all(engine, std::move(requests));
  };
  const auto mixed = answers(whole, {false, true, false, true});
  const auto full = answers(whole, {false, false, false, false});
  const auto without = answers(stripped, {false, false, false, false});
  for (size_t i = 0; i < mixed.size(); ++i) {
    const auto& expected = i % 2 == 1 ? without[i] : full[i];
    EXPECT_EQ(mixed[i].only().tokens, expected.only().tokens) << i;
    EXPECT_EQ(mixed[i].only().logprobs, expected.only().logprobs) << i;
  }
  EXPECT_EQ(answers(whole, {true})[0].only().logprobs, without[0].only().logprobs) << "alone";
  EXPECT_NE(mixed[0].only().logprobs, mixed[1].only().logprobs) << "compensators do nothing here";
}

TEST_F(DecoderModelTest, ABareRequestIsRefusedWhereCompensatorsCannotBeLeftOut) {
  DecoderModel model(decoder_, {.pages = 12});
  Engine engine(model, nullptr, {});
  Request request = greedy(prompt(5, 1), 4);
  request.bare = true;
  const Outcome refused = ask(engine, request);
  EXPECT_EQ(refused.admission.code, AdmissionCode::kInvalid);
  EXPECT_NE(refused.admission.message.find("compensators"), std::string::npos);
}

TEST_F(DecoderModelTest, DeterministicModeWantsAModelThatRunsOneByOne) {
  DecoderModel model(decoder_, {.pages = 12});
  EngineOptions options;
  options.deterministic = true;
  EXPECT_THROW(Engine(model, nullptr, options), Failure);
}

TEST_F(DecoderModelTest, EveryTypeOfCacheAnswers) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kI8}) {
    DecoderModel model(decoder_, {.pages = 8, .kv_type = type});
    EngineOptions options;
    options.max_running = 4;
    Engine engine(model, nullptr, options);
    Request request = greedy(prompt(130, 5), 20);
    request.n = 3;
    request.sampling.temperature = 1;
    request.sampling.seed = 3;
    EXPECT_EQ(ask(engine, request).answers.size(), 3U);
  }
}

}  // namespace
}  // namespace spear
