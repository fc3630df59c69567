// The program's options as plain data, read out of the CLI11 app: what completions and the man page
// are written from.
#pragma once

#include <string>
#include <vector>

#include "spear/cli/app.h"

namespace spear {

struct OptionDescription {
  std::vector<std::string>
      names;          // "-q", "--quiet"; a positional has its name alone, without dashes
  std::string value;  // "N", "FILE", "MODEL"; empty: takes none
  std::string help;
  std::string standard;              // what holds when it is not given
  std::vector<std::string> choices;  // every value it takes, when they are few
  bool required = false;
  bool repeats = false;
};

struct CommandDescription {
  std::string name;
  std::string summary;
  std::string description;
  std::vector<CommandExample> examples;
  std::vector<OptionDescription> options;
  std::vector<OptionDescription> positionals;
};

struct AppDescription {
  std::vector<OptionDescription> globals;
  std::vector<CommandDescription> commands;  // without the hidden ones
};

AppDescription describe(Application& application);

}  // namespace spear
