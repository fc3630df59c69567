#include <memory>

#include <CLI/CLI.hpp>

#include "spear/cli/commands.h"
#include "spear/cli/completions.h"

namespace spear {
namespace {

int run(const std::string& shell) {
  Application application;
  const AppDescription app = describe(application);
  print_out(shell == "bash"  ? bash_completion(app)
            : shell == "zsh" ? zsh_completion(app)
                             : fish_completion(app));
  return 0;
}

}  // namespace

Command completion_command() {
  return {.name = "completion",
          .summary = "Print the completion script of a shell",
          .description = "An installed spear has put them where the shells look already.",
          .examples = {{"source <(spear completion bash)", "Completion in this shell, now."},
                       {"spear completion fish > ~/.config/fish/completions/spear.fish",
                        "Completion in every later fish."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto shell = std::make_shared<std::string>();
            app.add_option("SHELL", *shell, "The shell")
                ->required()
                ->type_name("SHELL")
                ->check(CLI::IsMember({"bash", "zsh", "fish"}));
            return [shell](CommandContext&) { return run(*shell); };
          }};
}

}  // namespace spear
