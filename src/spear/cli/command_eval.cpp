#include <memory>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/cli/commands.h"
#include "spear/cli/machine.h"
#include "spear/cli/model_path.h"
#include "spear/cli/open_model.h"
#include "spear/eval/evaluate.h"
#include "spear/eval/text_encoder.h"

namespace spear {
namespace {

struct EvalSettings {
  std::vector<std::string> models;
  std::string reference;
  std::vector<std::string> texts;
  std::vector<std::string> choices, last_words;
  std::string data, output;
  std::string kv = "f32";
  MachineSettings machine;
  EvalOptions options;
};

EvalOptions eval_options(const EvalSettings& settings, const CommandContext& context) {
  EvalOptions options = settings.options;
  for (const std::string& text : settings.texts)
    options.texts.push_back(value_or_throw(parse_text_spec(text)));
  options.choice_files.assign(settings.choices.begin(), settings.choices.end());
  options.last_word_files.assign(settings.last_words.begin(), settings.last_words.end());
  options.data_folder =
      settings.data.empty() ? context.environment.data_dir : std::filesystem::path(settings.data);
  options.cache_folder = context.environment.cache_dir / "eval";
  options.reference_compute = options.model_compute = settings.machine.arithmetic();
  options.model_kv = settings.kv == "int8"  ? DType::kI8
                     : settings.kv == "f16" ? DType::kF16
                                            : DType::kF32;
  if (context.options.seed != 0) options.seed = context.options.seed;
  return options;
}

// The artifacts, each checked against the reference's tokenizer: figures of two tokenizers cannot
// be compared.
std::vector<OpenedModel> open_artifacts(const EvalSettings& settings, const OpenedModel& reference,
                                        ThreadPool& pool, CommandContext& context) {
  std::vector<OpenedModel> opened;
  for (const std::string& name : settings.models) {
    opened.push_back(
        open_model(name, context.environment, settings.machine.dtype(), pool, context.progress));
    const OpenedModel& model = opened.back();
    if (model.file == nullptr)
      throw Failure(ErrorCode::kUsage,
                    fmt::format("{}: a .spear file expected; the full-precision model is given "
                                "with --reference",
                                model.path.string()));
    if (model.tokenizer->vocab_size() != reference.tokenizer->vocab_size())
      throw Failure(
          ErrorCode::kUsage,
          fmt::format("{}: made from another model than the reference: {} tokens, {} has {}",
                      model.path.string(), model.tokenizer->vocab_size(), reference.path.string(),
                      reference.tokenizer->vocab_size()));
  }
  return opened;
}

int run(const EvalSettings& settings, CommandContext& context) {
  if (settings.reference.empty())
    throw Failure(ErrorCode::kUsage,
                  "--reference MODEL is required: the full-precision model that the others are "
                  "measured against");
  const EvalOptions options = eval_options(settings, context);
  const Machine machine = make_machine(settings.machine, context);
  const OpenedModel reference =
      open_reference(settings.reference, context.environment, settings.machine.dtype(),
                     *machine.pool, context.progress, "the reference");
  const std::vector<OpenedModel> opened =
      open_artifacts(settings, reference, *machine.pool, context);
  std::vector<CompressedModel> models;
  for (const OpenedModel& model : opened)
    models.push_back({model.path.string(), &model.file->model,
                      value_or_throw(sha256_of_file(model.path)),
                      path_of(settings.machine.path, model)});
  const EvalResult result =
      evaluate(*machine.backend, text_encoder(*reference.tokenizer),
               {reference.path.string(), reference.dense.get()}, models, options, context.progress);
  const std::string json = to_json_text(result);
  if (!settings.output.empty()) write_file_atomically(settings.output, json);
  print_out(context.options.json ? json : to_table(result));
  return 0;
}

void declare_options(CLI::App& app, EvalSettings& s) {
  app.add_option("MODEL", s.models, "Compressed models: .spear files")->type_name("MODEL");
  app.add_option("-r,--reference", s.reference,
                 "The full-precision model: a path or the name of a pulled model")
      ->type_name("MODEL");
  app.add_option("--text", s.texts,
                 "A text: wikitext2, moby_dick or a UTF-8 file, with @CONTEXT (all of a window "
                 "scored) or @CONTEXTh (its second half), and :WINDOWS for the first of them")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--task", s.options.tasks, "A task: piqa, arc_easy, winogrande")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--choices", s.choices, "A multiple-choice set, one JSON object a line")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--last-word", s.last_words, "A last-word set, one JSON object a line")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_flag("--quick", s.options.quick, "A subset of texts and tasks, marked as such");
  app.add_option("--data", s.data, "The folder of texts and tasks (also: the variable SPEAR_DATA)")
      ->type_name("FOLDER");
  app.add_option("--kv", s.kv, "Type of the compressed models' keys and values: f32, f16, int8")
      ->check(CLI::IsMember({"f32", "f16", "int8"}))
      ->type_name("TYPE");
  app.add_option("-o,--output", s.output, "Write the JSON result to a file as well")
      ->type_name("FILE");
  s.machine.path = "auto";
  add_machine_options(app, s.machine, Paths::kAll);
}

}  // namespace

Command eval_command() {
  return {.name = "eval",
          .summary = "Measure models against their full-precision reference",
          .description =
              "Perplexity, divergence of the predictions, answers to tasks, bytes and bits per "
              "weight. Without --text, --task, --choices and --last-word: WikiText-2 by both "
              "protocols and every task. What was computed is kept: an interrupted evaluation goes "
              "on, a second one of the same reference costs half.",
          .examples = {{"spear eval model.spear --reference smollm2-135m",
                        "Everything; the table of the README."},
                       {"spear eval a.spear b.spear -r smollm2-135m --text wikitext2@512h --json",
                        "One text, two models, JSON."},
                       {"spear eval -r smollm2-135m --quick", "The reference alone, in a minute."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<EvalSettings>();
            declare_options(app, *settings);
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
