#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/cli/commands.h"
#include "spear/cli/text.h"
#include "spear/hub/pull.h"

namespace spear {
namespace {

int run(const std::vector<std::string>& names, CommandContext& context) {
  for (const std::string& name : names) {
    remove_model(name, context.environment);
    if (!context.options.json) print_out(fmt::format("{}: removed\n", name));
  }
  if (context.options.json) print_out(json_text({{"removed", names}}));
  return 0;
}

}  // namespace

Command rm_command() {
  return {.name = "rm",
          .summary = "Remove pulled models from the cache",
          .description = "What an interrupted pull left is removed as well.",
          .examples = {{"spear rm smollm2-135m", "Removes one model."},
                       {"spear rm $(spear list --names)", "Removes every pulled model."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto names = std::make_shared<std::vector<std::string>>();
            app.add_option("NAME", *names, "The models to remove")->required()->type_name("PULLED");
            return [names](CommandContext& context) { return run(*names, context); };
          }};
}

}  // namespace spear
