#include "spear/report/report.h"

#include <algorithm>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "spear/report/plots.h"
#include "spear/report/tables.h"

#include "report/sample_input.h"

namespace spear {
namespace {

using test::sample_input;

int64_t count_of(const std::string& text, std::string_view part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

// Every element is closed in its turn, attributes are quoted, nothing is nested wrongly. HTML's
// void elements and comments aside this is XML.
::testing::AssertionResult well_formed(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return ::testing::AssertionFailure() << "a tag without end";
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0)
      return ::testing::AssertionFailure() << "an open quote in <" << tag << ">";
    const std::string name = tag.substr(0, tag.find_first_of(" /\n", 1));
    if (tag.starts_with('!') || tag.ends_with('/') || name == "meta") continue;
    if (!tag.starts_with('/')) {
      open.push_back(name);
      continue;
    }
    if (open.empty() || "/" + open.back() != tag)
      return ::testing::AssertionFailure()
             << "<" << tag << "> closes " << (open.empty() ? "nothing" : open.back());
    open.pop_back();
  }
  if (!open.empty()) return ::testing::AssertionFailure() << open.back() << " is never closed";
  return ::testing::AssertionSuccess();
}

TEST(HtmlReport, IsWellFormedAndHoldsEverySection) {
  const std::string html = html_report(sample_input());
  EXPECT_TRUE(well_formed(html));
  for (const char* part :
       {"Quality against bytes", "Texts", "Tasks", "Bytes", "Where predictions differ",
        "Which modules hurt", "Training", "Samples of text", "rotated-gptq-pc", "Q4_K_M", "IQ4_NL",
        "0.679", "prefers-color-scheme: dark"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
  EXPECT_EQ(count_of(html, "<svg "), 2 + 2 + 2 + 1);
}

TEST(HtmlReport, NeedsNothingFromOutsideAndNoScript) {
  const std::string html = html_report(sample_input());
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("src="), std::string::npos);
  EXPECT_EQ(html.find("href="), std::string::npos);
  EXPECT_EQ(html.find("@import"), std::string::npos);
  EXPECT_EQ(count_of(html, "http"), count_of(html, "http://www.w3.org/2000/svg"));
}

TEST(HtmlReport, EscapesWhateverTextItIsGiven) {
  ReportInput input = sample_input();
  const std::string hostile = "\"><img onerror=x>'&\x02\xc0";
  input.evaluation.models[0].path = hostile;
  input.evaluation.reference.texts[0].name = hostile;
  input.evaluation.models[1].texts[0].name = hostile;
  input.curves[0].name = hostile;
  input.damage->quantizer = hostile;
  input.samples[0].prompt = hostile;
  input.samples[0].answers[0].model = hostile;
  input.peers->points[0].name = hostile;
  const std::string html = html_report(input);
  EXPECT_TRUE(well_formed(html));
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("<b>"), std::string::npos);
  EXPECT_EQ(html.find('\x02'), std::string::npos);
  EXPECT_EQ(html.find('\xc0'), std::string::npos);
  EXPECT_NE(html.find("&lt;img"), std::string::npos);
}

TEST(HtmlReport, PicturesAreNamedForThoseWhoCannotSeeThem) {
  const std::string html = html_report(sample_input());
  EXPECT_EQ(count_of(html, "role=\"img\""), count_of(html, "<svg "));
  EXPECT_EQ(count_of(html, "<desc "), count_of(html, "<svg "));
  std::set<std::string> ids;
  for (size_t at = html.find(" id=\""); at != std::string::npos; at = html.find(" id=\"", at + 1)) {
    const size_t begin = at + 5;
    EXPECT_TRUE(ids.insert(html.substr(begin, html.find('"', begin) - begin)).second);
  }
  EXPECT_EQ(static_cast<int64_t>(ids.size()), 2 * count_of(html, "<svg "));
}

TEST(HtmlReport, LeavesOutWhatIsNotThere) {
  ReportInput input;
  input.evaluation.reference = test::sample_model("a", 100, 1, 0);
  input.evaluation.reference.tasks.clear();
  const std::string html = html_report(input);
  EXPECT_TRUE(well_formed(html));
  for (const char* part : {"<svg", "Tasks", "Which modules hurt", "Training", "Samples of text"})
    EXPECT_EQ(html.find(part), std::string::npos) << part;
}

TEST(HtmlReport, MarksQuickFigures) {
  ReportInput input = sample_input();
  EXPECT_EQ(html_report(input).find("class=\"quick\""), std::string::npos);
  EXPECT_EQ(markdown_report(input).find("Quick"), std::string::npos);
  input.evaluation.quick = true;
  EXPECT_NE(html_report(input).find("class=\"quick\""), std::string::npos);
  EXPECT_NE(markdown_report(input).find("Quick"), std::string::npos);
}

TEST(HtmlReport, BearsFiguresThatDoNotExist) {
  ReportInput input = sample_input();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (ModelResult& model : input.evaluation.models)
    for (TextResult& text : model.texts) {
      text.perplexity_stderr = nan;
      text.divergence->kl.standard_error = nan;
      text.divergence->kl.mean = nan;
      text.divergence->histogram = {};
    }
  input.curves[0].points[3].loss = nan;
  for (ModuleDamage& module : input.damage->modules) module.cka = module.kl = 0;
  const std::string html = html_report(input);
  EXPECT_TRUE(well_formed(html));
  EXPECT_EQ(html.find("nan"), std::string::npos);
}

TEST(QualityPlot, ShowsPeersOnlyOnTheirProtocol) {
  const ReportInput input = sample_input();
  const auto plot = [&](const std::string& text) {
    return quality_plot(input.evaluation, text, &*input.peers, "p");
  };
  EXPECT_EQ(count_of(plot("wikitext2@2048"), "<circle"), 5);
  EXPECT_EQ(count_of(plot("wikitext2@2048"), "class=\"peer\""), 0);
  EXPECT_EQ(count_of(plot("wikitext2@512h"), "class=\"peer\""), 4);
  EXPECT_EQ(plot("no such text"), "");
}

TEST(Peers, BelongToOneReference) {
  ASSERT_TRUE(llama_cpp_peers("models/SmolLM2-135M-Instruct.gguf"));
  EXPECT_EQ(llama_cpp_peers("smollm2-135m")->points.size(), 4u);
  EXPECT_TRUE(llama_cpp_peers("Qwen2.5-Coder-0.5B"));
  EXPECT_FALSE(llama_cpp_peers("llama-3.2-1b"));
}

TEST(DamageMap, HasACellForEveryModule) {
  const DamageReport report = test::sample_damage(3);
  EXPECT_EQ(count_of(damage_map(report, DamageKind::kKl, "d"), "<title>layers."), 21);
}

TEST(Gap, IsTheShareOfTheWayBack) {
  EXPECT_DOUBLE_EQ(gap_closed(38.99, 21.64, 38.99), 0);
  EXPECT_DOUBLE_EQ(gap_closed(38.99, 21.64, 21.64), 1);
  EXPECT_TRUE(std::isnan(gap_closed(20, 21, 20.5)));
}

TEST(Tables, SayTheSameInMarkdown) {
  const ReportInput input = sample_input();
  const Table table = text_table(input, input.evaluation.reference.texts[0]);
  ASSERT_EQ(table.rows.size(), 6u);
  for (const auto& row : table.rows) EXPECT_EQ(row.size(), table.header.size());
  EXPECT_EQ(table.rows[1].back(), "0 %");
  EXPECT_EQ(table.rows[0].back(), "100 %");
  const Table other = text_table(input, input.evaluation.reference.texts[1]);
  EXPECT_EQ(other.rows.size(), 10u);  // with llama.cpp's
  const std::string markdown = to_markdown(table);
  EXPECT_EQ(count_of(markdown, "\n|"), 8);
  ReportInput hostile = input;
  hostile.evaluation.models[0].path = "a|b\n*c*";
  EXPECT_NE(markdown_report(hostile).find("a\\|b \\*c\\*"), std::string::npos);
}

TEST(Names, AreShortAndWhole) {
  EXPECT_EQ(short_model_name("out/rtn-pc.spear"), "rtn-pc");
  EXPECT_EQ(short_model_name("out/best-4.5"), "best-4.5");
  EXPECT_EQ(short_model_name("äöüäöü.spear", 4), "äöü…");
}

}  // namespace
}  // namespace spear
