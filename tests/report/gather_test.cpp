#include "spear/report/gather.h"

#include <gtest/gtest.h>

#include "report/sample_input.h"

namespace spear {
namespace {

// The evaluation of one model, as a certificate holds it.
std::string certificate_of(size_t model) {
  EvalResult result = test::sample_input().evaluation;
  result.models = {result.models[model]};
  return to_json_text(result);
}

TEST(Gather, KnowsDocumentsByTheirFields) {
  ReportGatherer gatherer;
  ASSERT_TRUE(gatherer.add_document(certificate_of(0), "a.json"));
  ASSERT_TRUE(gatherer.add_document(to_json_text(test::sample_damage(2)), "d.json"));
  ASSERT_TRUE(gatherer.add_document(R"([{"prompt": "p", "seed": 1, "answers": []}])", "s.json"));
  ASSERT_TRUE(gatherer.add_document(R"({"training": {"curve": [{"step": 1, "loss": 0.5}]}})",
                                    "out/fast.json"));
  const auto input = gatherer.build("", "");
  ASSERT_TRUE(input) << input.error().message;
  EXPECT_EQ(input->title, "smollm2-135m: quality against bytes");
  EXPECT_EQ(input->evaluation.models.size(), 1u);
  EXPECT_EQ(input->damage->modules.size(), 14u);
  EXPECT_EQ(input->samples.size(), 1u);
  ASSERT_EQ(input->curves.size(), 1u);
  EXPECT_EQ(input->curves[0].name, "fast.json: training");
  EXPECT_TRUE(input->peers);
}

TEST(Gather, CallsCertifiedModelsByWhereTheyLieNow) {
  ReportGatherer gatherer;
  ASSERT_TRUE(gatherer.add_artifact({"new/rtn.spear", certificate_of(0), "{}", ""}));
  ASSERT_TRUE(gatherer.add_artifact({"new/best.spear", certificate_of(4),
                                     R"({"curve": [{"step": 1, "loss": 0.5}]})",
                                     to_json_text(test::sample_damage(1))}));
  ASSERT_TRUE(gatherer.add_artifact({"new/bare.spear", "", "", ""}));
  const auto input = gatherer.build("Mine", "rtn");
  ASSERT_TRUE(input) << input.error().message;
  EXPECT_EQ(input->title, "Mine");
  EXPECT_EQ(input->baseline, "new/rtn.spear");
  EXPECT_EQ(input->evaluation.models[1].path, "new/best.spear");
  EXPECT_EQ(input->curves[0].name, "best: training");
  EXPECT_TRUE(input->damage);
}

TEST(Gather, RefusesByName) {
  ReportGatherer gatherer;
  const auto refused = [&](std::string_view text) {
    const auto added = gatherer.add_document(text, "x.json");
    return !added && added.error().message.find("x.json") != std::string::npos;
  };
  EXPECT_TRUE(refused("{"));
  EXPECT_TRUE(refused("{}"));
  EXPECT_TRUE(refused("3"));
  EXPECT_TRUE(refused(R"({"reference": 1, "models": 2})"));
  EXPECT_TRUE(refused(R"({"modules": [1]})"));
  EXPECT_FALSE(gatherer.build("", ""));
  ASSERT_TRUE(gatherer.add_document(certificate_of(0), "a.json"));
  const auto unknown = gatherer.build("", "nobody");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("nobody"), std::string::npos);
}

}  // namespace
}  // namespace spear
