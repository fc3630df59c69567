#include <fmt/core.h>

#include "spear/report/axis.h"
#include "spear/report/plots.h"
#include "spear/report/report.h"
#include "spear/report/style.h"
#include "spear/report/svg.h"
#include "spear/report/tables.h"

namespace spear {
namespace {

constexpr size_t kWorstModules = 20;
constexpr size_t kCurveRows = 20;

// A plot with a caption, and figures folded away below it.
std::string figure(const std::string& svg, const std::string& caption,
                   const std::string& details = {}) {
  if (svg.empty()) return {};
  std::string out = "<figure>\n" + svg + fmt::format("<figcaption>{}</figcaption>\n", caption);
  if (!details.empty())
    out += "<details><summary>The figures as a table</summary>\n" + details + "</details>\n";
  return out + "</figure>\n";
}

std::string section(std::string_view heading, const std::string& body) {
  if (body.empty()) return {};
  return fmt::format("<section>\n<h2>{}</h2>\n{}</section>\n", escape_html(heading), body);
}

std::string in_grid(const std::string& figures) {
  return figures.empty() ? std::string() : "<div class=\"figures\">\n" + figures + "</div>\n";
}

std::string quality_caption(const ReportInput& input, const TextResult& text) {
  std::string caption = fmt::format(
      "<span class=\"key\"></span> models of spear, bytes of all tensors, KL over {} predictions.",
      short_number(static_cast<double>(text.scored)));
  if (input.peers && input.peers->text == text.name)
    caption += fmt::format(" <span class=\"key peer\"></span> measured by {}; whole files.",
                           escape_html(input.peers->source));
  return caption;
}

std::string quality_section(const ReportInput& input) {
  std::string plots;
  std::string tables;
  int number = 0;
  for (const TextResult& text : input.evaluation.reference.texts) {
    plots +=
        figure(quality_plot(input.evaluation, text.name, input.peers ? &*input.peers : nullptr,
                            fmt::format("quality-{}", number++)),
               "<strong>" + escape_html(text.name) + "</strong>: " + quality_caption(input, text));
    tables += to_html(text_table(input, text));
  }
  return section("Quality against bytes", in_grid(plots)) + section("Texts", tables);
}

std::string histogram_section(const ReportInput& input) {
  std::string plots;
  int number = 0;
  for (const TextResult& text : input.evaluation.reference.texts)
    plots += figure(
        histogram_plot(input.evaluation, text.name, fmt::format("histogram-{}", number++)),
        fmt::format(
            "<strong>{}</strong>: how large the KL of single predictions is. A mean hides the "
            "right end.",
            escape_html(text.name)));
  return section("Where predictions differ", in_grid(plots));
}

std::string damage_section(const ReportInput& input) {
  if (!input.damage) return {};
  const DamageReport& report = *input.damage;
  const std::string how =
      fmt::format("Each module alone quantized ({}), {} sequences of {} tokens.",
                  escape_html(report.quantizer), report.sequences, report.length);
  return section("Which modules hurt",
                 in_grid(figure(damage_map(report, DamageKind::kCka, "damage-cka"),
                                "<strong>1 − CKA of the final hidden states</strong>. " + how,
                                to_html(damage_table(report, kWorstModules))) +
                         figure(damage_map(report, DamageKind::kKl, "damage-kl"),
                                "<strong>Mean KL of the predictions</strong>, nats. " + how)));
}

std::string curve_section(const ReportInput& input) {
  std::string plots;
  int number = 0;
  for (const TrainingCurve& curve : input.curves)
    plots += figure(curve_plot(curve, fmt::format("curve-{}", number++)),
                    "<strong>" + escape_html(curve.name) + "</strong>",
                    to_html(curve_table(curve, kCurveRows)));
  return section("Training", in_grid(plots));
}

std::string sample_section(const ReportInput& input) {
  std::string out;
  for (const TextSample& sample : input.samples) {
    out += fmt::format("<h3>Prompt, seed {}</h3>\n<p class=\"prompt\">{}</p>\n", sample.seed,
                       escape_html(sample.prompt));
    std::string answers;
    for (const TextSample::Answer& answer : sample.answers)
      answers += fmt::format("<div class=\"card\"><h3>{}</h3><blockquote>{}</blockquote></div>\n",
                             escape_html(answer.model), escape_html(answer.text));
    out += in_grid(answers);
  }
  return section("Samples of text", out);
}

std::string heading(const ReportInput& input) {
  const ModelResult& reference = input.evaluation.reference;
  std::string out = fmt::format(
      "<h1>{}</h1>\n<p class=\"soft\">Reference: {} in {}; hidden states cached as {}; backend "
      "{}.</p>\n",
      escape_html(input.title), escape_html(short_model_name(reference.path, 60)),
      escape_html(reference.compute), escape_html(input.evaluation.reference_states),
      escape_html(input.evaluation.backend));
  if (input.evaluation.quick)
    out +=
        "<p class=\"quick\">Quick figures: a subset of texts and tasks, not comparable with full "
        "ones.</p>\n";
  return out;
}

}  // namespace

std::string html_report(const ReportInput& input) {
  const Table tasks = task_table(input);
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
      "name=\"viewport\" "
      "content=\"width=device-width, "
      "initial-scale=1\">\n<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n"
      "<main>\n",
      escape_html(input.title), report_style());
  out += heading(input);
  out += quality_section(input);
  if (!tasks.rows.empty()) out += section("Tasks", to_html(tasks));
  out += section("Bytes", to_html(size_table(input)));
  out += histogram_section(input);
  out += damage_section(input);
  out += curve_section(input);
  out += sample_section(input);
  out +=
      "<footer class=\"soft\"><p>KL is KL(reference ‖ model) in nats a prediction. ± is one "
      "standard error: for "
      "texts by resampling windows, for tasks of a share. The protocols are described in "
      "docs/eval-formats.md of "
      "spear.</p></footer>\n</main>\n</body>\n</html>\n";
  return out;
}

std::string markdown_report(const ReportInput& input) {
  std::string out;
  if (input.evaluation.quick) out += "Quick figures: a subset, not comparable with full ones.\n\n";
  for (const TextResult& text : input.evaluation.reference.texts)
    out += to_markdown(text_table(input, text));
  if (const Table tasks = task_table(input); !tasks.rows.empty()) out += to_markdown(tasks);
  out += to_markdown(size_table(input));
  if (input.peers) out += fmt::format("llama.cpp rows: measured by {}.\n", input.peers->source);
  return out;
}

}  // namespace spear
