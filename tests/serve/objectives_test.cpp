// Objectives over the API: refused early with a time to come back, told in metrics and answers.
#include <algorithm>
#include <chrono>

#include <gtest/gtest.h>

#include "spear/scheduler/cost_model.h"

#include "serve/test_service.h"

namespace spear {
namespace {

using test::Reply;
using test::TestService;
using test::TestServiceOptions;

struct Slow {
  LinearCosts costs;
  Slow() {
    costs.step = 1e-3;
    costs.prefill_token = 50e-3;
  }
  TestServiceOptions options(double ttft = 0) {
    TestServiceOptions o;
    o.engine.costs = &costs;
    o.engine.ttft_objective = ttft;
    return o;
  }
};

constexpr const char* kBody = R"({"prompt": "say:hello|>", "max_tokens": 8})";

TEST(Objectives, APromptThatWouldBeLateGets429AndWhenToComeBack) {
  Slow slow;
  TestService server(slow.options());
  const Reply late = server.ask("POST", "/v1/completions", kBody, {{"x-slo-ttft-ms", "100"}});
  EXPECT_EQ(late.status, 429) << late.body;
  EXPECT_EQ(late.json()["error"]["code"], "slo_unattainable");
  EXPECT_GE(std::stod(late.header("Retry-After")), 0.1);
  EXPECT_EQ(server.ask("POST", "/v1/completions", kBody, {{"x-slo-ttft-ms", "60000"}}).status, 200);
  EXPECT_EQ(server.ask("POST", "/v1/completions", kBody).status, 200) << "no objective";
}

// Before tokenization and without waiting for a step: the fastest of some takes less than half of
// one, on slow and busy machines, too. bench/load measures how fast it really is.
TEST(Objectives, SayingNoWaitsForNoStep) {
  Slow slow;
  slow.costs.prefill_token = 0.2;
  TestServiceOptions options = slow.options(0.1);
  options.step = std::chrono::milliseconds(200);
  TestService server(options);
  std::string body = R"({"prompt": ")";
  body.append(200000, 'a');
  body += R"(", "max_tokens": 8})";
  auto best = std::chrono::steady_clock::duration::max();
  for (int i = 0; i < 10; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(server.post("/v1/completions", body).status, 429);
    best = std::min(best, std::chrono::steady_clock::now() - start);
  }
  EXPECT_LT(best, options.step / 2);
}

TEST(Objectives, TheServersObjectiveAppliesWhereTheRequestBringsNone) {
  Slow slow;
  TestService server(slow.options(0.1));
  EXPECT_EQ(server.post("/v1/completions", kBody).status, 429);
  const std::string metrics = server.ask("GET", "/metrics").body;
  EXPECT_NE(metrics.find("spear:refused_late_total{model_name=\"tiny\",engine=\"0\"} 1"),
            std::string::npos)
      << metrics;
  for (const char* name : {"spear:step_cost_error", "spear:step_cost_headroom",
                           "spear:compensator_level", "spear:degraded_steps_total"})
    EXPECT_NE(metrics.find(name), std::string::npos) << name;
}

TEST(Objectives, AnswersSayWhetherTheyMetThem) {
  TestService server;
  const Reply met =
      server.ask("POST", "/v1/completions",
                 R"({"prompt": "say:hello|>", "max_tokens": 8, "include_metrics": true})",
                 {{"x-slo-ttft-ms", "60000"}, {"x-slo-tpot-ms", "60000"}});
  EXPECT_EQ(met.json()["metrics"]["slo_met"], true) << met.body;
  EXPECT_EQ(met.json()["metrics"]["compensator_level"], 0);
  const Reply missed =
      server.ask("POST", "/v1/completions",
                 R"({"prompt": "say:hello|>", "max_tokens": 8, "include_metrics": true})",
                 {{"x-slo-tpot-ms", "0.00001"}});
  EXPECT_EQ(missed.json()["metrics"]["slo_met"], false) << missed.body;
  const std::string metrics = server.ask("GET", "/metrics").body;
  EXPECT_NE(metrics.find("spear:slo_goodput_total{model_name=\"tiny\",engine=\"0\"} 1"),
            std::string::npos);
  EXPECT_NE(metrics.find("spear:slo_violation_total{model_name=\"tiny\",engine=\"0\"} 1"),
            std::string::npos);
}

TEST(Objectives, CompensatorsIsAutoOrFull) {
  TestService server;
  const auto with = [&](const char* value) {
    return server.post("/v1/completions", std::string(R"({"prompt": "a>", "max_tokens": 1, )") +
                                              R"("compensators": ")" + value + "\"}");
  };
  EXPECT_EQ(with("full").status, 200);
  EXPECT_EQ(with("auto").status, 200);
  const Reply wrong = with("half");
  EXPECT_EQ(wrong.status, 400);
  EXPECT_EQ(wrong.json()["error"]["param"], "compensators") << wrong.body;
}

}  // namespace
}  // namespace spear
