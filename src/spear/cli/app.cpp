#include "spear/cli/app.h"

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/cli/app_description.h"
#include "spear/cli/commands.h"
#include "spear/cli/help_text.h"

namespace spear {
namespace {

void add_globals(CLI::App& app, GlobalOptions& options) {
  app.add_option("--threads", options.threads, "Threads to compute with; 0: all processors")
      ->check(CLI::Range(0, 4096))
      ->type_name("N");
  app.add_option("--seed", options.seed, "Seed of everything random")->type_name("N");
  app.add_flag("--json", options.json, "Print results, and errors, as JSON");
  app.add_flag("-q,--quiet", options.quiet, "No progress and no notes, only results and errors");
  app.add_flag("-v,--verbose", options.verbose, "Say more about what is being done");
  app.add_flag("--no-color", options.no_color, "No colours (also: the variable NO_COLOR)");
}

// Edits that turn one word into another: for "did you mean".
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string version_text() {
  return std::string("spear ") + SPEAR_VERSION;
}

Application::Application()
    : app_(std::make_unique<CLI::App>(
          "spear: 4-bit language models with their lost quality given back", "spear")),
      commands_(all_commands()) {
  app_->option_defaults()->always_capture_default();
  app_->set_help_flag("-h,--help", "Print this help");
  app_->set_version_flag("--version", version_text(), "Print the version");
  app_->require_subcommand(1);
  add_globals(*app_, options_);
  for (const Command& command : commands_) {
    CLI::App* sub = app_->add_subcommand(command.name, command.summary);
    sub->fallthrough();  // options of every command may follow it
    if (command.hidden) sub->group("");
    runs_[command.name] = command.declare(*sub);
  }
}

Application::~Application() = default;

// What a wrong first word probably meant.
std::string Application::advice(const std::vector<std::string>& arguments) const {
  for (const std::string& word : arguments) {
    if (word.starts_with('-')) return {};
    std::string nearest;
    size_t least = 3;
    for (const Command& command : commands_) {
      if (command.name == word) return {};
      const size_t d = distance(word, command.name);
      if (!command.hidden && d < least) {
        least = d;
        nearest = command.name;
      }
    }
    return fmt::format("\"{}\" is not a command{} (`spear --help` lists them)", word,
                       nearest.empty() ? "" : fmt::format(": did you mean \"{}\"?", nearest));
  }
  return {};
}

std::string Application::help(const std::string& name) {
  const AppDescription description = describe(*this);
  for (const CommandDescription& command : description.commands)
    if (command.name == name) return command_help(description, command);
  return program_help(description);
}

Application::Parsed Application::parse(int argc, const char* const* argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.empty()) return {.text = help({}), .status = 2, .done = true, .command = {}};
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app_->parse(reversed);
  } catch (const CLI::CallForHelp&) {
    const std::vector<CLI::App*> chosen = app_->get_subcommands();
    return {.text = help(chosen.empty() ? "" : chosen[0]->get_name()),
            .status = 0,
            .done = true,
            .command = {}};
  } catch (const CLI::CallForVersion& version) {
    return {.text = std::string(version.what()) + "\n", .status = 0, .done = true, .command = {}};
  } catch (const CLI::ParseError& error) {
    const std::vector<CLI::App*> chosen = app_->get_subcommands();
    std::string text = advice(arguments);
    if (text.empty())
      text = fmt::format("{}; see `spear {}--help`", error.what(),
                         chosen.empty() ? "" : chosen[0]->get_name() + " ");
    std::replace(text.begin(), text.end(), '\n', ' ');
    return {.text = text, .status = 2, .done = true, .command = {}};
  }
  return {
      .text = {}, .status = 0, .done = false, .command = app_->get_subcommands()[0]->get_name()};
}

}  // namespace spear
