#include <filesystem>
#include <memory>
#include <system_error>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/cli/commands.h"
#include "spear/cli/open_model.h"
#include "spear/cli/text.h"
#include "spear/serve/tokenizer_info.h"

namespace spear {
namespace {

struct ExportSettings {
  std::string model;
  std::string folder;
};

int run(const ExportSettings& settings, CommandContext& context) {
  ThreadPool pool(context.options.threads);
  const OpenedModel model =
      open_model(settings.model, context.environment, DType::kBF16, pool, context.progress);
  const std::filesystem::path folder = settings.folder;
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem)
    throw Failure(ErrorCode::kIo, fmt::format("{}: {}", folder.string(), problem.message()));
  write_file_atomically(folder / "tokenizer.json", model.tokenizer->to_tokenizer_json());
  write_file_atomically(folder / "tokenizer_config.json",
                        json_text(tokenizer_info(*model.tokenizer, model.chat_template,
                                                 model.config().max_position_embeddings)));
  if (!context.options.quiet)
    print_out(fmt::format("{}: tokenizer.json, tokenizer_config.json\n", folder.string()));
  return 0;
}

}  // namespace

Command export_tokenizer_command() {
  return {.name = "export-tokenizer",
          .summary = "Write a model's tokenizer for other programs",
          .description =
              "Writes tokenizer.json and tokenizer_config.json, which give the same ids, "
              "into a folder: what benchmarks and evaluation suites that talk to the "
              "server load.",
          .examples = {{"spear export-tokenizer model.spear tokenizer/", "Into that folder."},
                       {"spear export-tokenizer smollm2-135m .", "Of a pulled model, here."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<ExportSettings>();
            app.add_option("MODEL", settings->model,
                           "A .spear file, a full-precision model, or a pulled name")
                ->required()
                ->type_name("MODEL");
            app.add_option("DIR", settings->folder, "Where to; made where it is missing")
                ->required()
                ->type_name("DIR");
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
