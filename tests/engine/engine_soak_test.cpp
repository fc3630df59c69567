// Thousands of requests from several threads over a tiny pool: mixed lengths, answers by the dozen,
// cancellations at any moment, readers that leave. Every answer ends once, every page comes back,
// and greedy answers are right.
#include <algorithm>
#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

#include "engine/collector.h"
#include "engine/scripted_model.h"

namespace spear {
namespace {

using test::greedy;
using test::Outcome;
using test::read_all;
using test::ScriptedModel;

constexpr int64_t kVocab = 30;

Request random_request(Rng& rng) {
  std::vector<int32_t> prompt;
  const auto family = static_cast<int32_t>(rng.below(4));
  for (uint32_t i = 0, n = 1 + rng.below(30); i < n; ++i)
    prompt.push_back((family * 7 + static_cast<int32_t>(i)) % static_cast<int32_t>(kVocab));
  Request r = greedy(std::move(prompt), 1 + rng.below(30));
  if (rng.below(3) == 0) {
    r.sampling.temperature = 1;
    r.sampling.top_p = 0.9;
    r.n = 1 + static_cast<int32_t>(rng.below(3));
    if (rng.below(3) == 0) r.best_of = 4;
  }
  if (rng.below(8) == 0) r.prompt_logprobs = 1;
  if (rng.below(8) == 0) r.logprobs = 2;
  r.priority = static_cast<int32_t>(rng.below(3));
  r.cache_salt = rng.below(2);
  if (rng.below(5) == 0) r.itl_objective = 0.001;
  return r;
}

std::vector<int32_t> greedy_answer(std::vector<int32_t> prefix, int64_t count) {
  std::vector<float> logits(kVocab);
  std::vector<int32_t> answer;
  for (int64_t i = 0; i < count; ++i) {
    ScriptedModel::noise(prefix, logits);
    prefix.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    answer.push_back(prefix.back());
  }
  return answer;
}

struct Counts {
  std::atomic<int> asked = 0, whole = 0, cancelled = 0, refused = 0;
};

void client(Engine& engine, uint64_t seed, int requests, Counts& counts) {
  Rng rng(seed);
  struct Open {
    Request request;
    Admission admission;
    std::shared_ptr<TokenStream> stream;
  };
  std::vector<Open> open;
  const auto close_one = [&] {
    const size_t at = rng.below(static_cast<uint32_t>(open.size()));
    Open one = std::move(open[at]);
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
    const uint32_t how = rng.below(6);
    if (how == 0) engine.cancel(one.admission.id);
    if (how == 1) {
      one.stream->close();
      return;
    }
    const Outcome outcome = read_all(one.admission, *one.stream);
    ASSERT_EQ(outcome.answers.size(), static_cast<size_t>(one.request.n));
    for (const auto& [choice, answer] : outcome.answers) {
      ASSERT_EQ(answer.finishes, 1);
      if (answer.finish.reason == FinishReason::kCancelled) {
        ++counts.cancelled;
        continue;
      }
      ASSERT_EQ(answer.finish.reason, FinishReason::kLength) << answer.finish.message;
      ASSERT_EQ(static_cast<int64_t>(answer.tokens.size()), one.request.max_tokens);
      if (one.request.sampling.temperature == 0) {
        ASSERT_EQ(answer.tokens, greedy_answer(one.request.prompt, one.request.max_tokens));
      }
      ++counts.whole;
    }
    if (one.request.prompt_logprobs >= 0 && outcome.only().finish.reason == FinishReason::kLength) {
      ASSERT_EQ(outcome.prompt.size(), one.request.prompt.size());
    }
  };
  for (int i = 0; i < requests; ++i) {
    Request request = random_request(rng);
    auto stream = std::make_shared<TokenStream>(request.n);
    const Admission admission = engine.submit(request, stream);
    ++counts.asked;
    if (admission.code == AdmissionCode::kAccepted) {
      open.push_back({std::move(request), admission, stream});
    } else {
      ASSERT_EQ(admission.code, AdmissionCode::kQueueFull);
      ++counts.refused;  // the queue is full: something must end first
      if (!open.empty())
        close_one();
      else
        std::this_thread::yield();
    }
    if (open.size() > 12) close_one();
    if (testing::Test::HasFatalFailure()) return;
  }
  while (!open.empty() && !testing::Test::HasFatalFailure()) close_one();
}

TEST(EngineSoak, EndsWithEveryPageFreeAndEveryAnswerOnce) {
  ScriptedModel model(kVocab, 26, 4, 64);
  EngineOptions options;
  options.max_running = 6;
  options.max_waiting = 16;
  options.token_budget = 24;
  options.max_draft = 3;
  options.check_invariants = true;
  Engine engine(model, nullptr, options);
  Counts counts;
  std::vector<std::thread> clients;
  for (uint64_t c = 0; c < 3; ++c)
    clients.emplace_back([&, c] { client(engine, 40 + c, 1000, counts); });
  for (std::thread& thread : clients) thread.join();
  EXPECT_TRUE(engine.drain(60));
  const EngineStats stats = engine.stats();
  EXPECT_TRUE(engine.healthy());
  EXPECT_EQ(stats.used_pages, 0);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.waiting_tokens, 0);
  // How much of each there is depends on when threads run; that there is some does not.
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.prefix_hits, 0);
  EXPECT_GT(counts.whole.load(), 300);
  EXPECT_GT(counts.cancelled.load(), 10);
  EXPECT_EQ(counts.asked.load(), 3000);
}

TEST(EngineSoak, AnEngineThatGoesAwayEndsWhatRuns) {
  for (uint64_t round = 0; round < 20; ++round) {
    std::vector<std::pair<Admission, std::shared_ptr<TokenStream>>> open;
    Rng rng(round);
    ScriptedModel model(kVocab, 26, 4, 64);
    {
      EngineOptions options;
      options.max_running = 4;
      options.max_waiting = 40;
      options.token_budget = 24;
      Engine engine(model, nullptr, options);
      for (int i = 0; i < 30; ++i) {
        Request request = random_request(rng);
        request.n = 1;
        request.best_of = 0;
        auto stream = std::make_shared<TokenStream>();
        open.emplace_back(engine.submit(std::move(request), stream), stream);
      }
    }
    for (auto& [admission, stream] : open)
      if (admission.code == AdmissionCode::kAccepted) {
        EXPECT_EQ(read_all(admission, *stream).only().finishes, 1);
      }
  }
}

}  // namespace
}  // namespace spear
