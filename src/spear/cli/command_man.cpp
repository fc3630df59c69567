#include <CLI/CLI.hpp>

#include "spear/cli/commands.h"
#include "spear/cli/man_page.h"

namespace spear {

Command man_command() {
  return {.name = "man",
          .summary = "Print the manual page",
          .description = "In the form that man reads; the build installs it.",
          .examples = {{"spear man | man -l -", "Shows it."}, {"spear man > spear.1", "Keeps it."}},
          .declare = [](CLI::App&) -> RunCommand {
            return [](CommandContext&) {
              Application application;
              print_out(man_page(describe(application), version_text()));
              return 0;
            };
          },
          .hidden = true};
}

}  // namespace spear
