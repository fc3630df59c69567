#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/cli/commands.h"
#include "spear/cli/inspect_report.h"
#include "spear/cli/text.h"
#include "spear/hub/pull.h"

namespace spear {
namespace {

struct InspectSettings {
  std::string model;
  bool verify = false;
};

// Every range and shape is checked at any rate; the checksums of the sections when asked.
Json inspect_artifact(const std::filesystem::path& path, bool verify) {
  const ModelFile file =
      value_or_throw(load_model(path, verify ? FileChecks::kEveryByte : FileChecks::kStructure));
  Json description = describe_artifact(file, path);
  if (verify) description["verified"] = true;
  return description;
}

int run(const InspectSettings& settings, CommandContext& context) {
  const std::filesystem::path path =
      value_or_throw(resolve_model(settings.model, context.environment));
  const bool artifact = path.extension() == ".spear";
  if (settings.verify && !artifact)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: --verify is for .spear files, which store their checksums",
                              path.string()));
  const Json description = artifact ? inspect_artifact(path, settings.verify)
                                    : describe_checkpoint(value_or_throw(Checkpoint::open(path)));
  if (context.options.json) {
    print_out(json_text(description));
    return 0;
  }
  print_out(inspect_text(description));
  if (settings.verify) print_out("\nEvery checksum and every range is as it was written.\n");
  return 0;
}

}  // namespace

Command inspect_command() {
  return {.name = "inspect",
          .summary = "Show what is in a model file",
          .description =
              "Of a .spear file: configuration, bytes by part, precisions, compensators, how it "
              "was made, its quality certificate, its sections. Of a GGUF file or a folder of "
              "safetensors: configuration, licence and digest.",
          .examples = {{"spear inspect model.spear", "Everything, for people."},
                       {"spear inspect model.spear --verify --json",
                        "Checks every checksum and range, and prints JSON."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<InspectSettings>();
            app.add_option("MODEL", settings->model, "A path or the name of a pulled model")
                ->required()
                ->type_name("MODEL");
            app.add_flag("--verify", settings->verify, "Check every checksum and every range");
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
