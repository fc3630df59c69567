#include "spear/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"

#include "engine/byte_tokenizer.h"
#include "engine/collector.h"
#include "engine/scripted_model.h"

namespace spear {
namespace {

using test::ask;
using test::ask_all;
using test::greedy;
using test::Outcome;
using test::read_all;
using test::ScriptedModel;
using test::small_options;

constexpr int64_t kVocab = 50;

std::vector<int32_t> prompt_of(int64_t length, int32_t seed) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < length; ++i)
    tokens.push_back(static_cast<int32_t>((seed * 31 + i * i + 7 * i) % kVocab));
  return tokens;
}

// What greedy decoding gives, computed without engine, pages or batches.
std::vector<int32_t> expected_greedy(std::vector<int32_t> prefix, int64_t count,
                                     int64_t vocab = kVocab) {
  std::vector<float> logits(static_cast<size_t>(vocab));
  std::vector<int32_t> answer;
  for (int64_t i = 0; i < count; ++i) {
    ScriptedModel::noise(prefix, logits);
    answer.push_back(static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin()));
    prefix.push_back(answer.back());
  }
  return answer;
}

TEST(Engine, AnswersAsTheModelAloneWould) {
  ScriptedModel model(kVocab, 32);
  Engine engine(model, nullptr, small_options());
  const Outcome outcome = ask(engine, greedy(prompt_of(21, 1), 30));
  EXPECT_EQ(outcome.only().tokens, expected_greedy(prompt_of(21, 1), 30));
  EXPECT_EQ(outcome.only().finish.reason, FinishReason::kLength);
  EXPECT_EQ(outcome.only().finish.prompt_tokens, 21);
  EXPECT_EQ(outcome.only().finish.tokens, 30);
  EXPECT_TRUE(engine.drain(10));
  EXPECT_EQ(engine.stats().used_pages, 0);
}

TEST(Engine, BatchesPreemptsAndSharesWithoutChangingAToken) {
  ScriptedModel model(kVocab, 18);  // the longest takes 16
  EngineOptions options = small_options();
  Engine engine(model, nullptr, options);
  std::vector<Request> requests;
  for (int i = 0; i < 40; ++i) requests.push_back(greedy(prompt_of(3 + i % 30, i % 5), 30));
  const std::vector<Outcome> outcomes = ask_all(engine, std::move(requests));
  for (int i = 0; i < 40; ++i)
    EXPECT_EQ(outcomes[static_cast<size_t>(i)].only().tokens,
              expected_greedy(prompt_of(3 + i % 30, i % 5), 30))
        << i;
  EXPECT_TRUE(engine.drain(10));
  const EngineStats stats = engine.stats();
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.prefix_hits, 0);
  EXPECT_EQ(stats.used_pages, 0);
  EXPECT_EQ(stats.generated_tokens, 40 * 30);
  EXPECT_TRUE(engine.healthy());
}

TEST(Engine, GuessingChangesNoTokenAndSavesSteps) {
  // A model that repeats a phrase of eight tokens for ever.
  const auto phrase = [](std::span<const int32_t> prefix, std::span<float> logits) {
    std::ranges::fill(logits, 0.0f);
    logits[(static_cast<size_t>(prefix.back()) + 1) % 8] = 5;
  };
  std::vector<std::vector<int32_t>> answers;
  std::vector<int64_t> steps;
  for (const int64_t draft : {0, 6}) {
    ScriptedModel model(kVocab, 64, 4, 256, phrase);
    EngineOptions options = small_options();
    options.max_draft = draft;
    options.max_context = 200;
    Engine engine(model, nullptr, options);
    answers.push_back(ask(engine, greedy({0, 1, 2, 3}, 120)).only().tokens);
    steps.push_back(model.steps.load());
    EXPECT_TRUE(engine.drain(10));
    EXPECT_EQ(engine.stats().accepted_drafts > 0, draft > 0);
  }
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_LT(steps[1] * 3, steps[0]);
}

TEST(Engine, GuessingChangesNoSampledTokenEither) {
  std::vector<std::vector<int32_t>> answers;
  const auto few = [](std::span<const int32_t> prefix, std::span<float> logits) {
    ScriptedModel::noise(prefix.last(std::min<size_t>(prefix.size(), 2)), logits);
  };
  for (const int64_t draft : {0, 5}) {
    ScriptedModel model(6, 64, 4, 256, few);
    EngineOptions options = small_options();
    options.max_draft = draft;
    options.max_context = 200;
    Engine engine(model, nullptr, options);
    std::vector<int32_t> all;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Request request = greedy({0, 1, 2, 3}, 100);
      request.sampling.temperature = 0.5;
      request.sampling.seed = seed;
      request.sampling.top_p = 0.9;
      request.sampling.presence_penalty = 0.3;
      const auto tokens = ask(engine, std::move(request)).only().tokens;
      all.insert(all.end(), tokens.begin(), tokens.end());
    }
    answers.push_back(all);
    EXPECT_TRUE(engine.drain(10));
    if (draft > 0) {
      EXPECT_GT(engine.stats().accepted_drafts, 20);
      EXPECT_GT(engine.stats().drafted_tokens, engine.stats().accepted_drafts);
    }
  }
  EXPECT_EQ(answers[0], answers[1]);
}

TEST(Engine, SeveralAnswersShareThePromptAndDifferBySeed) {
  ScriptedModel model(kVocab, 32);
  EngineOptions options = small_options();
  Engine engine(model, nullptr, options);
  Request request = greedy(prompt_of(9, 2), 12);
  request.n = 4;
  request.sampling.temperature = 1;
  request.sampling.seed = 5;
  const Outcome together = ask(engine, request);
  ASSERT_EQ(together.answers.size(), 4U);
  EXPECT_EQ(engine.stats().computed_prompt_tokens, 9) << "the prompt is computed once";
  for (const auto& [choice, answer] : together.answers) {
    EXPECT_EQ(answer.tokens.size(), 12U);
    EXPECT_EQ(answer.finishes, 1);
  }
  EXPECT_NE(together.answers.at(0).tokens, together.answers.at(1).tokens);
  request.n = 1;
  EXPECT_EQ(ask(engine, request).only().tokens, together.answers.at(0).tokens);
  EXPECT_TRUE(engine.drain(10));
  EXPECT_EQ(engine.stats().used_pages, 0);
}

TEST(Engine, BestOfGivesTheLikeliestAnswers) {
  ScriptedModel model(kVocab, 64);
  Engine engine(model, nullptr, small_options());
  Request request = greedy(prompt_of(5, 3), 6);
  request.sampling.temperature = 1.5;
  request.sampling.seed = 1;
  request.n = 4;
  request.logprobs = 0;
  const Outcome all = ask(engine, request);
  std::vector<double> means;
  for (const auto& [choice, answer] : all.answers) {
    const double sum = std::accumulate(answer.logprobs.begin(), answer.logprobs.end(), 0.0);
    EXPECT_NEAR(answer.finish.logprob_sum, sum, 1e-4);
    means.push_back(sum / static_cast<double>(answer.tokens.size()));
  }
  const auto best = static_cast<int32_t>(std::ranges::max_element(means) - means.begin());
  request.n = 1;
  request.best_of = 4;
  request.logprobs = -1;
  const Outcome given = ask(engine, request);
  ASSERT_EQ(given.answers.size(), 1U);
  EXPECT_EQ(given.only().tokens, all.answers.at(best).tokens);
  EXPECT_EQ(given.only().finishes, 1);
}

TEST(Engine, LogprobsAreTheModelsOwn) {
  ScriptedModel model(kVocab, 32);
  Engine engine(model, nullptr, small_options());
  Request request = greedy(prompt_of(6, 4), 5);
  request.logprobs = 3;
  request.prompt_logprobs = 2;
  request.sampling.logit_bias = {{7, 50.0f}};  // changes the choice, not what is reported
  const Outcome outcome = ask(engine, request);
  std::vector<int32_t> text = prompt_of(6, 4);
  std::vector<float> logits(kVocab);
  const auto logprob = [&](int32_t token) {
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l));
    return static_cast<double>(logits[static_cast<size_t>(token)]) - std::log(sum);
  };
  ASSERT_EQ(outcome.prompt.size(), 6U);
  EXPECT_TRUE(outcome.prompt[0].top.empty());
  for (size_t i = 1; i < 6; ++i) {
    ScriptedModel::noise(std::span(text).first(i), logits);
    EXPECT_EQ(outcome.prompt[i].token, text[i]);
    EXPECT_NEAR(outcome.prompt[i].logprob, logprob(text[i]), 1e-5);
    EXPECT_EQ(outcome.prompt[i].top.size(), 2U);
  }
  for (size_t i = 0; i < 5; ++i) {
    ScriptedModel::noise(text, logits);
    EXPECT_EQ(outcome.only().tokens[i], 7);
    EXPECT_NEAR(outcome.only().logprobs[i], logprob(7), 1e-5);
    const auto& top = outcome.only().tops[i];
    ASSERT_EQ(top.size(), 3U);
    EXPECT_EQ(top[0].token, std::ranges::max_element(logits) - logits.begin());
    EXPECT_GT(top[0].logprob, top[1].logprob);
    EXPECT_GT(top[1].logprob, top[2].logprob);
    text.push_back(7);
  }
}

TEST(Engine, APromptAloneGetsItsLogprobsAndNoAnswer) {
  ScriptedModel model(kVocab, 32);
  Engine engine(model, nullptr, small_options());
  Request request = greedy(prompt_of(64, 4), 0);  // as long as the context
  request.prompt_logprobs = 0;
  const Outcome outcome = ask(engine, request);
  EXPECT_EQ(outcome.prompt.size(), 64U);
  EXPECT_TRUE(outcome.only().tokens.empty());
  EXPECT_EQ(outcome.only().finish.reason, FinishReason::kLength);
}

TEST(Engine, EndTokensStopUnlessIgnoredOrTooEarly) {
  ScriptedModel model(kVocab, 32);
  EngineOptions options = small_options();
  const auto usual = expected_greedy(prompt_of(5, 6), 20);
  options.end_ids = {usual[3]};
  const auto first = static_cast<size_t>(std::ranges::find(usual, usual[3]) - usual.begin());
  Engine engine(model, nullptr, options);
  Request request = greedy(prompt_of(5, 6), 20);
  const Outcome stopped = ask(engine, request);
  EXPECT_EQ(stopped.only().tokens.size(), first + 1);
  EXPECT_EQ(stopped.only().finish.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.only().finish.stop_id, usual[3]);
  request.ignore_eos = true;
  EXPECT_EQ(ask(engine, request).only().tokens, usual);
  request.stop_ids = {usual[1]};
  EXPECT_LE(ask(engine, request).only().tokens.size(), 2U);
  request.stop_ids.clear();
  request.ignore_eos = false;
  request.min_tokens = 15;
  const auto longer = ask(engine, request).only();
  EXPECT_GE(longer.tokens.size(), 15U);
  EXPECT_EQ(std::ranges::count(std::span(longer.tokens).first(14), usual[3]), 0)
      << "an end token that may not end is not chosen";
}

TEST(Engine, StopStringsEndTheTextWhereverTokensAreCut) {
  const Tokenizer tokenizer = test::byte_tokenizer({"ab", "bc", "abc", "xa"});
  // Writes a fixed text, byte by byte, after any prompt of one token.
  const std::string text = "one two xabc three";
  const auto script = [&](std::span<const int32_t> prefix, std::span<float> logits) {
    std::ranges::fill(logits, 0.0f);
    const size_t at = (prefix.size() - 1) % text.size();
    logits[static_cast<uint8_t>(text[at])] = 9;
  };
  ScriptedModel model(tokenizer.vocab_size(), 64, 4, 256, script);
  EngineOptions options = small_options();
  options.max_draft = 4;
  Engine engine(model, &tokenizer, options);
  const auto text_with = [&](std::vector<std::string> stop, bool include) {
    Request request = greedy({65}, 40);
    request.stop = std::move(stop);
    request.include_stop = include;
    return ask(engine, request).only();
  };
  const auto answer = text_with({"never", "abc", "bc t"}, false);
  EXPECT_EQ(answer.text, "one two x");
  EXPECT_EQ(answer.finish.stop_string, "abc");
  EXPECT_EQ(answer.finish.reason, FinishReason::kStop);
  EXPECT_EQ(text_with({"abc"}, true).text, "one two xabc");
  EXPECT_EQ(text_with({"thx"}, false).text, (text + text + text).substr(0, 40));
  std::string shown;
  for (const std::string& piece : answer.pieces) {
    shown += piece;
    EXPECT_EQ(shown.find("a"), std::string::npos) << "nothing of a stop string is ever shown";
  }
}

TEST(Engine, CancelsInEveryStateAndTellsTheSinkOnce) {
  ScriptedModel model(kVocab, 32);
  model.delay = std::chrono::microseconds(300);
  EngineOptions options = small_options();
  options.max_running = 2;
  options.token_budget = 8;
  Engine engine(model, nullptr, options);
  std::vector<std::pair<Admission, std::shared_ptr<TokenStream>>> open;
  for (int i = 0; i < 8; ++i) {
    auto stream = std::make_shared<TokenStream>();
    open.emplace_back(engine.submit(greedy(prompt_of(20, i), 40), stream), stream);
  }
  (void)open[0].second->next(10);  // it runs
  for (auto& [admission, stream] : open) engine.cancel(admission.id);
  engine.cancel(12345);
  for (auto& [admission, stream] : open) {
    const Outcome outcome = read_all(admission, *stream);
    EXPECT_EQ(outcome.only().finish.reason, FinishReason::kCancelled);
    EXPECT_EQ(outcome.only().finishes, 1);
  }
  EXPECT_TRUE(engine.drain(10));
  EXPECT_EQ(engine.stats().used_pages, 0);
  EXPECT_EQ(engine.stats().waiting, 0);
}

TEST(Engine, AReaderThatLeavesOrFallsBehindLosesItsRequestOnly) {
  ScriptedModel model(kVocab, 64);
  Engine engine(model, nullptr, small_options());
  auto closed = std::make_shared<TokenStream>();
  closed->close();
  engine.submit(greedy(prompt_of(4, 1), 50), closed);
  auto slow = std::make_shared<TokenStream>(1, 3);
  const Admission admission = engine.submit(greedy(prompt_of(4, 2), 50), slow);
  EXPECT_EQ(ask(engine, greedy(prompt_of(4, 3), 50)).only().tokens.size(), 50U);
  EXPECT_TRUE(engine.drain(20));
  const Outcome outcome = read_all(admission, *slow);
  EXPECT_EQ(outcome.only().finish.reason, FinishReason::kCancelled);
  EXPECT_EQ(outcome.only().tokens.size(), 3U);
}

TEST(Engine, ABoundedQueueSaysNoAndLaterYes) {
  ScriptedModel model(kVocab, 32);
  model.delay = std::chrono::microseconds(500);
  EngineOptions options = small_options();
  options.max_running = 1;
  options.max_waiting = 3;
  Engine engine(model, nullptr, options);
  std::vector<std::pair<Admission, std::shared_ptr<TokenStream>>> open;
  int full = 0;
  for (int i = 0; i < 20; ++i) {
    auto stream = std::make_shared<TokenStream>();
    open.emplace_back(engine.submit(greedy(prompt_of(10, i), 20), stream), stream);
    full += open.back().first.code == AdmissionCode::kQueueFull;
  }
  EXPECT_GE(full, 16);
  for (auto& [admission, stream] : open)
    if (admission.code == AdmissionCode::kAccepted) {
      EXPECT_EQ(read_all(admission, *stream).only().finish.reason, FinishReason::kLength);
    } else {
      EXPECT_NE(admission.message.find("queue"), std::string::npos);
    }
  EXPECT_EQ(ask(engine, greedy(prompt_of(3, 1), 2)).only().tokens.size(), 2U);
}

TEST(Engine, DrainFinishesWhatRunsAndTakesNoMore) {
  ScriptedModel model(kVocab, 32);
  model.delay = std::chrono::microseconds(200);
  Engine engine(model, nullptr, small_options());
  auto stream = std::make_shared<TokenStream>();
  const Admission admission = engine.submit(greedy(prompt_of(4, 1), 50), stream);
  std::thread drainer([&] { EXPECT_TRUE(engine.drain(30)); });
  drainer.join();
  EXPECT_EQ(read_all(admission, *stream).only().tokens.size(), 50U);
  EXPECT_EQ(ask(engine, greedy({1}, 1)).admission.code, AdmissionCode::kDraining);
}

TEST(Engine, DrainCancelsWhatDoesNotEndInTime) {
  ScriptedModel model(kVocab, 64);
  model.delay = std::chrono::microseconds(5000);
  Engine engine(model, nullptr, small_options());
  auto stream = std::make_shared<TokenStream>();
  const Admission admission = engine.submit(greedy(prompt_of(4, 1), 59), stream);
  EXPECT_FALSE(engine.drain(0.01));
  EXPECT_EQ(read_all(admission, *stream).only().finish.reason, FinishReason::kCancelled);
}

TEST(Engine, ADeviceThatFailsEndsEveryRequestWithAReason) {
  ScriptedModel model(kVocab, 32);
  model.delay = std::chrono::microseconds(500);
  Engine engine(model, nullptr, small_options());
  auto stream = std::make_shared<TokenStream>();
  const Admission admission = engine.submit(greedy(prompt_of(4, 1), 60), stream);
  (void)stream->next(10);
  model.fails = true;
  const Outcome outcome = read_all(admission, *stream);
  EXPECT_EQ(outcome.only().finish.reason, FinishReason::kError);
  EXPECT_NE(outcome.only().finish.message.find("gone"), std::string::npos);
  EXPECT_FALSE(engine.healthy());
  EXPECT_EQ(ask(engine, greedy({1}, 1)).admission.code, AdmissionCode::kFailed);
}

TEST(Engine, LogitsThatAreNotNumbersEndTheirRequestOnly) {
  const auto script = [](std::span<const int32_t> prefix, std::span<float> logits) {
    ScriptedModel::noise(prefix, logits);
    if (prefix.front() == 13) std::ranges::fill(logits, std::nanf(""));
  };
  ScriptedModel model(kVocab, 32, 4, 256, script);
  Engine engine(model, nullptr, small_options());
  const auto outcomes = ask_all(engine, {greedy({13, 2}, 5), greedy({1, 2}, 5)});
  EXPECT_EQ(outcomes[0].only().finish.reason, FinishReason::kError);
  EXPECT_NE(outcomes[0].only().finish.message.find("not numbers"), std::string::npos);
  EXPECT_EQ(outcomes[1].only().tokens.size(), 5U);
  EXPECT_TRUE(engine.healthy());
}

TEST(Engine, ChoosesTheSameTokensOnAPool) {
  std::vector<std::vector<int32_t>> answers;
  ThreadPool pool(3);
  for (ThreadPool* used : {static_cast<ThreadPool*>(nullptr), &pool}) {
    ScriptedModel model(kVocab, 64);
    EngineOptions options = small_options();
    options.pool = used;
    Engine engine(model, nullptr, options);
    std::vector<Request> requests;
    for (int i = 0; i < 12; ++i) {
      requests.push_back(greedy(prompt_of(5 + i, i), 20));
      requests.back().sampling.temperature = 0.8;
      requests.back().sampling.seed = static_cast<uint64_t>(i);
      requests.back().sampling.top_k = i % 3 == 0 ? 5 : 0;
      requests.back().n = 1 + i % 2;
    }
    std::vector<int32_t> all;
    for (const Outcome& o : ask_all(engine, std::move(requests)))
      for (const auto& [choice, answer] : o.answers)
        all.insert(all.end(), answer.tokens.begin(), answer.tokens.end());
    answers.push_back(all);
  }
  EXPECT_EQ(answers[0], answers[1]);
}

}  // namespace
}  // namespace spear
