#include "spear/cli/completions.h"

#include <algorithm>

#include <fmt/format.h>

namespace spear {
namespace {

std::string joined(const std::vector<std::string>& words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : std::string(between)) + word;
  return text;
}

std::vector<std::string> command_names(const AppDescription& app) {
  std::vector<std::string> names;
  for (const CommandDescription& c : app.commands) names.push_back(c.name);
  return names;
}

std::string option_words(const std::vector<OptionDescription>& options) {
  std::vector<std::string> words;
  for (const OptionDescription& o : options)
    words.insert(words.end(), o.names.begin(), o.names.end());
  return joined(words, " ");
}

// What may stand where a value is expected.
enum class Kind { kModel, kPulled, kChoices, kFile, kFree };

Kind kind_of(const OptionDescription& option) {
  const std::string& value = option.value;
  if (!option.choices.empty()) return Kind::kChoices;
  if (value == "MODEL") return Kind::kModel;
  if (value == "PULLED") return Kind::kPulled;
  for (const char* path : {"FILE", "FOLDER", "PATH"})
    if (value == path) return Kind::kFile;
  return Kind::kFree;
}

std::string bash_values(const OptionDescription& option) {
  constexpr const char* kPulled = "$(compgen -W \"$(spear list --names 2>/dev/null)\" -- \"$cur\")";
  switch (kind_of(option)) {
    case Kind::kChoices:
      return fmt::format("COMPREPLY=($(compgen -W \"{}\" -- \"$cur\"))",
                         joined(option.choices, " "));
    case Kind::kModel:
      return fmt::format("COMPREPLY=({} $(compgen -f -- \"$cur\"))", kPulled);
    case Kind::kPulled:
      return fmt::format("COMPREPLY=({})", kPulled);
    case Kind::kFile:
      return "COMPREPLY=($(compgen -f -- \"$cur\"))";
    case Kind::kFree:
      return "COMPREPLY=()";
  }
  return {};
}

std::string bash_value_cases(const std::string& command,
                             const std::vector<OptionDescription>& options) {
  std::string text;
  for (const OptionDescription& o : options) {
    if (o.value.empty()) continue;
    std::vector<std::string> patterns;
    for (const std::string& name : o.names) patterns.push_back(command + ":" + name);
    text += fmt::format("    {}) {}; return ;;\n", joined(patterns, "|"), bash_values(o));
  }
  return text;
}

}  // namespace

std::string bash_completion(const AppDescription& app) {
  const std::string globals = option_words(app.globals);
  std::string text = "# bash completion of spear; made by `spear completion bash`\n_spear() {\n";
  text +=
      "  local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" command=\"\" "
      "i\n";
  text += "  compopt -o filenames 2>/dev/null\n";
  text += "  for ((i = 1; i < COMP_CWORD; i++)); do\n    case \"${COMP_WORDS[i]}\" in\n";
  text += fmt::format("      {}) command=\"${{COMP_WORDS[i]}}\"; break ;;\n",
                      joined(command_names(app), "|"));
  text += "    esac\n  done\n  case \"$command:$prev\" in\n";
  text += bash_value_cases("*", app.globals);
  for (const CommandDescription& c : app.commands) text += bash_value_cases(c.name, c.options);
  text += "  esac\n  case \"$command\" in\n";
  text += fmt::format("    \"\") COMPREPLY=($(compgen -W \"{} {}\" -- \"$cur\")) ;;\n",
                      joined(command_names(app), " "), globals);
  for (const CommandDescription& c : app.commands) {
    text += fmt::format("    {})\n      if [[ \"$cur\" == -* ]]; then\n", c.name);
    text += fmt::format("        COMPREPLY=($(compgen -W \"{} {}\" -- \"$cur\"))\n",
                        option_words(c.options), globals);
    if (!c.positionals.empty())
      text += "      else\n        " + bash_values(c.positionals.back()) + "\n";
    text += "      fi ;;\n";
  }
  return text + "  esac\n}\ncomplete -F _spear spear\n";
}

namespace {

// Inside a zsh specification in single quotes.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else if (c == '[' || c == ']' || c == ':' || c == '\\')
      out += std::string("\\") + c;
    else
      out += c;
  }
  return out;
}

std::string zsh_action(const OptionDescription& o) {
  switch (kind_of(o)) {
    case Kind::kChoices:
      return fmt::format(":{}:({})", o.value, joined(o.choices, " "));
    case Kind::kModel:
      return fmt::format(":{}:_spear_models", o.value);
    case Kind::kPulled:
      return fmt::format(":{}:_spear_pulled", o.value);
    case Kind::kFile:
      return fmt::format(":{}:_files", o.value);
    case Kind::kFree:
      return fmt::format(":{}:", o.value);
  }
  return {};
}

std::string zsh_specs(const std::vector<OptionDescription>& options) {
  std::string text;
  for (const OptionDescription& o : options)
    for (const std::string& name : o.names)
      text += fmt::format(" \\\n        '*{}[{}]{}'", name, zsh_text(o.help),
                          o.value.empty() ? "" : zsh_action(o));
  return text;
}

}  // namespace

std::string zsh_completion(const AppDescription& app) {
  std::string text = "#compdef spear\n# zsh completion of spear; made by `spear completion zsh`\n";
  text +=
      "_spear_pulled() {\n  local -a names\n"
      "  names=(${(f)\"$(spear list --names 2>/dev/null)\"})\n"
      "  compadd -a names\n}\n";
  text += "_spear_models() { _spear_pulled; _files }\n";
  text += "_spear() {\n  local -a commands\n  commands=(\n";
  for (const CommandDescription& c : app.commands)
    text += fmt::format("    '{}:{}'\n", c.name, zsh_text(c.summary));
  text += "  )\n  local state line\n  _arguments -C" + zsh_specs(app.globals) +
          " \\\n        '1:command:->command' '*::argument:->argument'\n";
  text +=
      "  case $state in\n  command) _describe command commands ;;\n  argument)\n    case $line[1] "
      "in\n";
  for (const CommandDescription& c : app.commands) {
    text += fmt::format("    {})\n      _arguments", c.name) + zsh_specs(c.options) +
            zsh_specs(app.globals);
    for (const OptionDescription& p : c.positionals)
      text += fmt::format(" \\\n        '{}{}'", p.repeats ? "*" : "", zsh_action(p));
    text += "\n      ;;\n";
  }
  return text + "    esac ;;\n  esac\n}\n_spear \"$@\"\n";
}

namespace {

std::string fish_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string fish_values(const OptionDescription& o) {
  switch (kind_of(o)) {
    case Kind::kChoices:
      return fmt::format(" -x -a '{}'", joined(o.choices, " "));
    case Kind::kModel:
      return " -r -F -a '(spear list --names 2>/dev/null)'";
    case Kind::kPulled:
      return " -x -a '(spear list --names 2>/dev/null)'";
    case Kind::kFile:
      return " -r -F";
    case Kind::kFree:
      return " -x";
  }
  return {};
}

std::string fish_options(const std::string& condition,
                         const std::vector<OptionDescription>& options) {
  std::string text;
  for (const OptionDescription& o : options) {
    text += "complete -c spear" + condition;
    for (const std::string& name : o.names)
      text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    text += fmt::format(" -d '{}'{}\n", fish_text(o.help), o.value.empty() ? "" : fish_values(o));
  }
  return text;
}

}  // namespace

std::string fish_completion(const AppDescription& app) {
  std::string text =
      "# fish completion of spear; made by `spear completion fish`\ncomplete -c spear -f\n";
  for (const CommandDescription& c : app.commands)
    text += fmt::format("complete -c spear -n __fish_use_subcommand -a {} -d '{}'\n", c.name,
                        fish_text(c.summary));
  text += fish_options("", app.globals);
  for (const CommandDescription& c : app.commands) {
    const std::string condition = fmt::format(" -n '__fish_seen_subcommand_from {}'", c.name);
    text += fish_options(condition, c.options);
    for (const OptionDescription& p : c.positionals)
      if (kind_of(p) != Kind::kFree)
        text += "complete -c spear" + condition + fish_values(p) + "\n";
  }
  return text;
}

}  // namespace spear
