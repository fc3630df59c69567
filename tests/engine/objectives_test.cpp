// Objectives in the engine: what is refused by its time, what answers say of it, what is measured.
#include <gtest/gtest.h>

#include "spear/engine/engine.h"
#include "spear/engine/measure_costs.h"
#include "spear/engine/token_stream.h"
#include "spear/scheduler/learned_costs.h"

#include "engine/collector.h"
#include "engine/scripted_model.h"

namespace spear {
namespace {

using test::ask;
using test::greedy;
using test::ScriptedModel;

LinearCosts costs_of(double step, double prompt_row) {
  LinearCosts costs;
  costs.step = step;
  costs.prefill_token = prompt_row;
  return costs;
}

TEST(EngineObjectives, RefusesWhatCannotHaveItsFirstTokenInTime) {
  ScriptedModel model(32, 64);
  LinearCosts costs = costs_of(1e-3, 0.1);
  EngineOptions options = test::small_options();
  options.costs = &costs;
  options.ttft_objective = 1;
  Engine engine(model, nullptr, options);
  Request long_prompt = greedy(std::vector<int32_t>(40, 3), 2);
  const Admission refused = engine.submit(long_prompt, std::make_shared<TokenStream>());
  EXPECT_EQ(refused.code, AdmissionCode::kTooLate);
  EXPECT_NEAR(refused.expected_ttft, 4, 0.2);
  EXPECT_NEAR(refused.retry_after, 3, 0.2);
  EXPECT_NE(refused.message.find("objective of 1.00 s"), std::string::npos) << refused.message;
  EXPECT_EQ(engine.stats().refused_late, 1);
  EXPECT_EQ(ask(engine, greedy({1, 2}, 2)).only().tokens.size(), 2U);
  long_prompt.ttft_objective = 100;  // its own objective goes before the engine's
  EXPECT_EQ(ask(engine, long_prompt).only().tokens.size(), 2U);
}

TEST(EngineObjectives, ForeseesWithoutAPromptAndByWhatWaitsBefore) {
  ScriptedModel model(32, 64);
  model.delay = std::chrono::milliseconds(20);
  LinearCosts costs = costs_of(1e-3, 10e-3);
  EngineOptions options = test::small_options();
  options.costs = &costs;
  Engine engine(model, nullptr, options);
  EXPECT_EQ(engine.foresee(10, 0, 0).code, AdmissionCode::kAccepted) << "no objective";
  EXPECT_EQ(engine.foresee(10, 0.2, 0).code, AdmissionCode::kAccepted);
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int i = 0; i < 6; ++i) {
    streams.push_back(std::make_shared<TokenStream>());
    Request request = greedy(std::vector<int32_t>(40, i), 10);
    request.priority = 1;
    EXPECT_EQ(engine.submit(std::move(request), streams.back()).code, AdmissionCode::kAccepted);
  }
  EXPECT_EQ(engine.foresee(10, 0.2, 0).code, AdmissionCode::kTooLate) << "behind 240 rows";
  EXPECT_EQ(engine.foresee(10, 60, 0).code, AdmissionCode::kAccepted);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) (void)engine.foresee(10, 0.2, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1)) << "10 ms each";
  for (const auto& stream : streams) stream->close();
}

TEST(EngineObjectives, AnswersSayHowManyOfTheirGapsWereLate) {
  ScriptedModel model(32, 64);
  model.delay = std::chrono::milliseconds(5);
  Engine engine(model, nullptr, test::small_options());
  Request request = greedy({1, 2, 3}, 6);
  request.itl_objective = 1e-3;
  Finish finish = ask(engine, request).only().finish;
  EXPECT_EQ(finish.gaps, 5);
  EXPECT_EQ(finish.late_gaps, 5);
  request.itl_objective = 10;
  finish = ask(engine, request).only().finish;
  EXPECT_EQ(finish.late_gaps, 0);
}

TEST(EngineObjectives, AnObjectiveThatNoStepMeetsIsSaidAtTheStart) {
  ScriptedModel model(32, 64);
  LinearCosts costs = costs_of(20e-3, 1e-3);
  EngineOptions options = test::small_options();
  options.costs = &costs;
  options.itl_objective = 30e-3;
  try {
    Engine engine(model, nullptr, options);
    FAIL() << "no complaint";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kUsage);
    EXPECT_NE(failure.error().message.find("36.0 ms"), std::string::npos)
        << failure.error().message;
  }
  options.itl_objective = 40e-3;
  Engine engine(model, nullptr, options);
  EXPECT_TRUE(engine.healthy());
}

TEST(EngineObjectives, PriorityHasBounds) {
  ScriptedModel model(32, 64);
  Engine engine(model, nullptr, test::small_options());
  Request request = greedy({1}, 1);
  request.priority = 101;
  const Admission refused = engine.submit(request, std::make_shared<TokenStream>());
  EXPECT_EQ(refused.code, AdmissionCode::kInvalid);
  EXPECT_NE(refused.message.find("priority"), std::string::npos);
}

// Takes as long as a table says, on a clock of its own: what is measured must be the table again.
class TimedModel final : public StepModel {
 public:
  int64_t vocab_size() const override { return 16; }
  int64_t max_context() const override { return 2048; }
  int64_t page_size() const override { return 64; }
  int64_t pages() const override { return 64; }
  bool rows_stand_alone() const override { return true; }
  int32_t levels() const override { return 2; }
  std::span<float> run(const StepInput& input) override {
    StepShape shape;
    for (const AttentionSequence& s : input.sequences) {
      const bool decodes = s.rows == 1 && !input.logit_rows.empty();
      shape.decode_rows += decodes ? 1 : 0;
      shape.context_tokens += decodes ? s.context + 1 : 0;
      shape.prefill_tokens += decodes ? 0 : s.rows;
      shape.prefill_pairs += decodes ? 0 : s.rows * s.context + s.rows * (s.rows + 1) / 2;
    }
    shape.level = input.level;
    now += costs.seconds(shape);
    logits_.assign(input.logit_rows.size() * 16, 0.0F);
    return logits_;
  }
  StepCostTable costs;
  double now = 0;

 private:
  std::vector<float> logits_;
};

TEST(MeasureCosts, FindsWhatAModelCosts) {
  TimedModel model;
  model.costs.rows = {1, 64, 256};
  model.costs.base = {4e-4, 1e-3, 4e-3};
  model.costs.compensators = {1e-4, 3e-4, 1e-3};
  model.costs.decode_row = 5e-5;
  model.costs.context_token = 1e-7;
  model.costs.prefill_pair = 1e-8;
  model.costs.level_shares = {1, 0};
  const StepCostTable found = measure_step_costs(
      model,
      {.token_budget = 256, .max_running = 8, .seconds = 0.3, .level_shares = {1, 0}, .clock = [&] {
         return model.now;
       }});
  for (const StepShape& s : {StepShape{.prefill_tokens = 100, .prefill_pairs = 5000},
                             StepShape{.prefill_tokens = 200, .prefill_pairs = 100000, .level = 1},
                             StepShape{.decode_rows = 6, .context_tokens = 3000},
                             StepShape{.decode_rows = 4,
                             .prefill_tokens = 60,
                             .context_tokens = 2000,
                             .prefill_pairs = 20000}})
    EXPECT_NEAR(found.seconds(s) / model.costs.seconds(s), 1, 0.05);
}

}  // namespace
}  // namespace spear
