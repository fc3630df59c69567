#include "spear/report/report_input.h"

#include <gtest/gtest.h>

#include "report/sample_input.h"

namespace spear {
namespace {

TEST(Merge, JoinsModelsAndTextsOfOneReference) {
  const EvalResult whole = test::sample_input().evaluation;
  EvalResult first = whole;
  EvalResult second = whole;
  first.models.resize(2);
  first.models[1].texts.resize(1);
  second.models.erase(second.models.begin());
  const auto merged = merge_evaluations({first, second});
  ASSERT_TRUE(merged);
  EXPECT_EQ(merged->models.size(), whole.models.size());
  EXPECT_EQ(merged->models[1].texts.size(), 2u);
}

TEST(Merge, RefusesWhatCannotBeCompared) {
  const EvalResult one = test::sample_input().evaluation;
  EvalResult other = one;
  other.reference.content_hash = "another";
  EXPECT_FALSE(merge_evaluations({one, other}));
  other = one;
  other.quick = true;
  EXPECT_FALSE(merge_evaluations({one, other}));
  EXPECT_FALSE(merge_evaluations({}));
}

TEST(Curves, AreFoundWhereverTheyStand) {
  const auto curves = curves_from_json_text(
      R"({"phases": {"stage 1": {"curve": [{"step": 10, "loss": 0.3}, {"step": 0, "loss": 0.5, "held_out": 0.4}]},
          "stage 2": {"curve": []}}})",
      "p.json");
  ASSERT_TRUE(curves) << curves.error().message;
  ASSERT_EQ(curves->size(), 1u);
  EXPECT_EQ((*curves)[0].name, "stage 1");
  EXPECT_EQ((*curves)[0].points[0].step, 0);
  EXPECT_DOUBLE_EQ((*curves)[0].points[0].held_out_kl, 0.4);
  EXPECT_LT((*curves)[0].points[1].held_out_kl, 0);
  EXPECT_TRUE(curves_from_json_text("{}", "p.json")->empty());
  EXPECT_FALSE(curves_from_json_text("{\"curve\": [3]}", "p.json"));
  EXPECT_FALSE(curves_from_json_text("{\"curve\": [{\"step\": \"a\", \"loss\": 1}]}", "p.json"));
  EXPECT_FALSE(curves_from_json_text("{", "p.json"));
}

TEST(SamplesJson, ComeBackFromTheirJson) {
  std::vector<TextSample> samples = test::sample_input().samples;
  samples[0].answers[1].text = "plain";
  const auto back = samples_from_json_text(to_json_text(samples), "s.json");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json_text(*back), to_json_text(samples));
  for (const char* bad :
       {"{}", "[1]", "[{\"prompt\": \"a\"}]",
        "[{\"prompt\": \"a\", \"seed\": -1, \"answers\": []}]",
        "[{\"prompt\": \"a\", \"seed\": 1, \"answers\": [{\"model\": 1, \"text\": \"\"}]}]"})
    EXPECT_FALSE(samples_from_json_text(bad, "s.json")) << bad;
}

}  // namespace
}  // namespace spear
