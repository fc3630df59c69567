// What `spear bench` makes of its measurements.
#include "spear/cli/bench_results.h"

#include <gtest/gtest.h>

namespace spear {
namespace {

BenchRuns runs_of(bool prefill, bool compensators, std::vector<double> seconds) {
  BenchRuns runs;
  runs.what = {.prefill = prefill, .tokens = 100, .context = prefill ? 0 : 50, .batch = 1};
  runs.compensators = compensators;
  runs.seconds = std::move(seconds);
  runs.bytes_per_step = 1000;
  runs.multiply_adds_per_run = 5000;
  runs.ceiling = 200'000;
  return runs;
}

TEST(BenchResults, SpreadIsTheMiddleAndBothEnds) {
  EXPECT_EQ(spread_of({3, 1, 2}).median, 2);
  EXPECT_EQ(spread_of({4, 1, 3, 2}).median, 2.5);
  EXPECT_EQ(spread_of({4, 1, 3, 2}).least, 1);
  EXPECT_EQ(spread_of({4, 1, 3, 2}).most, 4);
}

TEST(BenchResults, ASpeedStandsBesideItsCeiling) {
  const std::vector<Json> rows =
      bench_rows({runs_of(false, true, {1.0, 0.5, 2.0})}, {{"model", "m"}});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].at("model"), "m");
  EXPECT_EQ(rows[0].at("what"), "decode");
  EXPECT_DOUBLE_EQ(rows[0].at("tokens_per_second").at("median").get<double>(), 100);
  EXPECT_DOUBLE_EQ(rows[0].at("share").get<double>(), 100 * 1000 / 200'000.0);
  const std::vector<Json> prompt = bench_rows({runs_of(true, true, {0.5})}, Json::object());
  EXPECT_DOUBLE_EQ(prompt[0].at("share").get<double>(), 2 * 5000 / 0.5 / 200'000);
}

TEST(BenchResults, CompensatorsCostTheMedianOfTheRoundsQuotients) {
  const std::vector<Json> rows =
      bench_rows({runs_of(false, true, {1.1, 2.2, 3.6}), runs_of(false, false, {1.0, 2.0, 3.0})},
                 Json::object());
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[2].at("what"), "ec_cost_decode");
  EXPECT_NEAR(rows[2].at("cost").at("median").get<double>(), 0.1, 1e-12);
  EXPECT_NEAR(rows[2].at("cost").at("max").get<double>(), 0.2, 1e-12);
  EXPECT_NE(bench_table(rows).find("compensators cost 10.0 %"), std::string::npos);
}

TEST(BenchResults, LinesComeBackAndAreCompared) {
  const std::vector<Json> a =
      bench_rows({runs_of(false, true, {1.0, 1.1}), runs_of(true, true, {1.0})}, Json::object());
  const std::vector<Json> b = bench_rows({runs_of(false, true, {0.5, 0.5})}, Json::object());
  EXPECT_EQ(parse_bench_lines(bench_lines(a), "a"), a);
  const std::string table = compare_bench(a, b);
  EXPECT_NE(table.find("decode 100 after 50"), std::string::npos);
  EXPECT_EQ(table.find("prefill"), std::string::npos);
  EXPECT_NE(table.find("2.095"), std::string::npos) << table;
  EXPECT_THROW((void)compare_bench({a[1]}, b), Failure);
}

TEST(BenchResults, OtherFilesAreRefusedByLine) {
  const auto message = [](const std::string& text) {
    try {
      (void)parse_bench_lines(text, "x.jsonl");
    } catch (const Failure& failure) {
      return failure.error().message;
    }
    return std::string();
  };
  EXPECT_NE(message("{}\n").find("x.jsonl, line 1: not a row"), std::string::npos);
  EXPECT_NE(message("\n[1]").find("line 2"), std::string::npos);
  EXPECT_NE(message("{\"what\": \"decode\", \"tokens_per_second\": 3}").find("not a row"),
            std::string::npos);
  EXPECT_NE(message("{broken").find("line 1"), std::string::npos);
  const std::string row = bench_lines(bench_rows({runs_of(false, true, {1.0})}, Json::object()));
  EXPECT_NE(message(row + row).find("line 2: a second row"), std::string::npos);
}

}  // namespace
}  // namespace spear
