#include "spear/cli/app_description.h"

#include <CLI/CLI.hpp>

namespace spear {
namespace {

// CLI11 writes the values of IsMember behind the type: "TEXT:{bash,zsh}".
std::vector<std::string> choices_of(const std::string& type) {
  std::vector<std::string> choices;
  const size_t open = type.find(":{");
  const size_t close = type.find('}', open);
  if (open == std::string::npos || close == std::string::npos) return choices;
  size_t begin = open + 2;
  while (begin < close) {
    const size_t end = std::min(type.find(',', begin), close);
    choices.push_back(type.substr(begin, end - begin));
    begin = end + 1;
  }
  return choices;
}

OptionDescription describe(const CLI::Option& option) {
  OptionDescription d;
  for (const std::string& name : option.get_snames()) d.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) d.names.push_back("--" + name);
  if (d.names.empty()) d.names.push_back(option.get_name(true));
  const std::string type = option.get_type_name();
  const bool takes_value = option.get_items_expected_max() > 0 && option.get_type_size_max() > 0;
  if (takes_value) {
    d.choices = choices_of(type);
    d.value = type.substr(0, type.find(':'));
    if (d.value.empty()) d.value = "TEXT";
  }
  d.help = option.get_description();
  d.standard = takes_value ? option.get_default_str() : "";
  if (d.standard == "\"\"" || d.standard == "[]" || d.standard == "{}") d.standard.clear();
  d.required = option.get_required();
  d.repeats = option.get_items_expected_max() > 1;
  return d;
}

void describe_options(const CLI::App& app, std::vector<OptionDescription>& options,
                      std::vector<OptionDescription>& positionals) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    (option->get_positional() ? positionals : options).push_back(describe(*option));
  }
}

}  // namespace

AppDescription describe(Application& application) {
  AppDescription d;
  std::vector<OptionDescription> none;
  describe_options(application.app(), d.globals, none);
  for (const Command& command : application.commands()) {
    if (command.hidden) continue;
    CommandDescription c{.name = command.name,
                         .summary = command.summary,
                         .description = command.description,
                         .examples = command.examples,
                         .options = {},
                         .positionals = {}};
    describe_options(*application.app().get_subcommand(command.name), c.options, c.positionals);
    std::erase_if(c.options, [](const OptionDescription& o) { return o.names.back() == "--help"; });
    d.commands.push_back(std::move(c));
  }
  return d;
}

}  // namespace spear
