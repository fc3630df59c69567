#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/cli/commands.h"
#include "spear/cli/open_model.h"
#include "spear/cli/report_samples.h"
#include "spear/cli/text.h"
#include "spear/hub/pull.h"
#include "spear/report/gather.h"
#include "spear/report/report.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

struct ReportSettings {
  std::vector<std::string> files;
  std::string output = "report.html";
  std::string markdown, title, baseline;
  bool no_samples = false;
  SampleRequest samples;
  MachineSettings machine;
};

// Artifacts give their certificate, provenance and diagnosis; everything else is a JSON document.
// Returns the artifacts.
std::vector<fs::path> gather_files(const std::vector<std::string>& names, const Environment& env,
                                   ReportGatherer& gatherer) {
  std::vector<fs::path> artifacts;
  for (const std::string& name : names) {
    const fs::path path = value_or_throw(resolve_model(name, env));
    if (is_artifact(path) || path.extension() == ".spear") {
      const ModelFile file = value_or_throw(load_model(path));
      const std::string shown = path.string();
      value_or_throw(gatherer.add_artifact({.path = shown,
                                            .certificate = file.texts.certificate,
                                            .provenance = file.texts.provenance,
                                            .diagnosis = file.texts.diagnosis}));
      artifacts.push_back(path);
    } else {
      value_or_throw(gatherer.add_document(value_or_throw(read_text_file(path)), path.string()));
    }
  }
  return artifacts;
}

Error with_advice(Error error) {
  if (error.message.starts_with("no evaluation"))
    error.message += "; `spear eval MODEL.spear --reference MODEL --output eval.json` makes one";
  return error;
}

int run(ReportSettings& s, CommandContext& context) {
  ReportGatherer gatherer;
  s.samples.artifacts = gather_files(s.files, context.environment, gatherer);
  // What is missing is said before the models run.
  Result<ReportInput> input = gatherer.build(s.title, s.baseline);
  if (!input) throw Failure(with_advice(input.error()));
  if (!s.no_samples && !s.samples.artifacts.empty()) {
    if (context.options.seed != 0) s.samples.seed = context.options.seed;
    gatherer.add_samples(make_samples(s.samples, s.machine, context));
    input = gatherer.build(s.title, s.baseline);
  }
  const ReportInput& complete = value_or_throw(std::move(input));
  const fs::path html = s.output;
  const fs::path markdown =
      s.markdown.empty() ? fs::path(html).replace_extension(".md") : fs::path(s.markdown);
  if (markdown == html)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: two names expected for the page and its tables", html.string()));
  write_file_atomically(html, html_report(complete));
  write_file_atomically(markdown, markdown_report(complete));
  if (context.options.json)
    print_out(json_text({{"html", html.string()}, {"markdown", markdown.string()}}));
  else
    print_out(fmt::format("{}\n{}: a page to open in a browser; {}: the same tables\n",
                          markdown_report(complete), html.string(), markdown.string()));
  return 0;
}

void declare_options(CLI::App& app, ReportSettings& s) {
  app.add_option("FILE", s.files,
                 ".spear files with a certificate, results of eval, diagnoses, samples (JSON)")
      ->required()
      ->type_name("FILE");
  app.add_option("-o,--output", s.output, "The page to write")->type_name("FILE");
  app.add_option("--markdown", s.markdown,
                 "The tables to write; without it, beside the page as .md")
      ->type_name("FILE");
  app.add_option("--title", s.title, "The heading")->type_name("TEXT");
  app.add_option("--baseline", s.baseline, "The measured model from which closed gaps are counted")
      ->type_name("NAME");
  app.add_option("-r,--reference", s.samples.reference,
                 "The full-precision model, for samples of text; without it, the pulled model that "
                 "the first .spear file was made from")
      ->type_name("MODEL");
  app.add_option("--prompt", s.samples.prompts, "What the models are asked for the samples")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  app.add_option("--sample-tokens", s.samples.most_tokens, "Tokens of a sample")
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
  app.add_flag("--no-samples", s.no_samples, "Run no model: no samples of text");
  add_machine_options(app, s.machine);
}

}  // namespace

Command report_command() {
  return {
      .name = "report",
      .summary = "Write a page that shows what compression cost and gave back",
      .description =
          "One HTML file without outside parts, and Markdown tables: quality against bytes, the "
          "spread of the divergence, which modules hurt, the training's curves, and what the "
          "models say before and after.",
      .examples = {{"spear report smollm2.spear -o report.html",
                    "From the certificate that the file carries."},
                   {"spear report a.spear b.spear eval.json damage.json --no-samples",
                    "Several models, a wider evaluation and a diagnosis."}},
      .declare = [](CLI::App& app) -> RunCommand {
        auto settings = std::make_shared<ReportSettings>();
        declare_options(app, *settings);
        return [settings](CommandContext& context) { return run(*settings, context); };
      }};
}

}  // namespace spear
