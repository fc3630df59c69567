#include "spear/cli/help_text.h"

#include <algorithm>

#include <fmt/format.h>

namespace spear {
namespace {

constexpr size_t kWidth = 92;
constexpr size_t kColumn = 26;  // where explanations begin

std::string entry(const std::string& head, const std::string& says) {
  std::string text = "  " + head;
  if (text.size() + 2 > kColumn)
    text += "\n" + std::string(kColumn, ' ');
  else
    text.resize(kColumn, ' ');
  return text + wrapped(says, kWidth, kColumn) + "\n";
}

std::string option_entry(const OptionDescription& option) {
  std::string head;
  for (const std::string& name : option.names) head += (head.empty() ? "" : ", ") + name;
  if (!option.names[0].starts_with('-'))
    head += option.repeats ? " ..." : "";
  else if (!option.value.empty())
    head += " " + option.value;
  std::string says = option.help;
  std::string choices;
  for (const std::string& choice : option.choices)
    choices += (choices.empty() ? "" : ", ") + choice;
  if (!choices.empty()) says += ": " + choices;
  if (!option.standard.empty()) says += " [" + option.standard + "]";
  return entry(head, says);
}

std::string option_list(std::string_view title, const std::vector<OptionDescription>& options) {
  if (options.empty()) return {};
  std::string text = fmt::format("\n{}:\n", title);
  for (const OptionDescription& option : options) text += option_entry(option);
  return text;
}

std::string usage(const CommandDescription& command) {
  std::string line = "Usage: spear " + command.name + " [options]";
  for (const OptionDescription& p : command.positionals) {
    const std::string name = p.names[0] + (p.repeats ? " ..." : "");
    line += p.required ? " " + name : " [" + name + "]";
  }
  return line + "\n";
}

}  // namespace

std::string wrapped(std::string_view text, size_t width, size_t indent) {
  std::string out;
  size_t column = indent;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    begin = end + 1;
    if (word.empty()) continue;
    const bool fits = column + 1 + word.size() <= width;
    if (!out.empty() && fits) out += ' ';
    if (!out.empty() && !fits) out += "\n" + std::string(indent, ' ');
    column = (out.empty() || !fits ? indent : column + 1) + word.size();
    out += word;
  }
  return out;
}

std::string program_help(const AppDescription& app) {
  std::string text = "spear: 4-bit language models with their lost quality given back\n\n";
  text += "Usage: spear COMMAND [options]\n\nCommands:\n";
  for (const CommandDescription& c : app.commands) text += entry(c.name, c.summary);
  text += option_list("Options of every command", app.globals);
  return text +
         "\n`spear COMMAND --help` explains a command and gives examples; `man spear` has it all,\n"
         "exit codes and variables too.\n";
}

std::string command_help(const AppDescription& app, const CommandDescription& command) {
  std::string text = wrapped("spear " + command.name + ": " + command.summary + ".", kWidth, 0) +
                     "\n" + wrapped(command.description, kWidth, 0) + "\n\n" + usage(command);
  text += option_list("What it takes", command.positionals);
  text += option_list("Options", command.options);
  text += "\nExamples:\n";
  for (const CommandExample& e : command.examples)
    text += fmt::format("  {}\n      {}\n", e.line, wrapped(e.says, kWidth, 6));
  std::string globals;
  for (const OptionDescription& g : app.globals)
    globals += (globals.empty() ? "" : " ") + g.names.back();
  return text + "\n" + wrapped("Options of every command (spear --help): " + globals, kWidth, 2) +
         "\n";
}

}  // namespace spear
