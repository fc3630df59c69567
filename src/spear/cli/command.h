// What a command of the program is: a name, what its help says, its options, and what it does. A
// new command is one file command_<name>.cpp that makes a Command, and its line in commands.cpp.
// The main thread runs it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/env.h"
#include "spear/base/progress.h"

namespace CLI {
class App;
}

namespace spear {

// Options that stand before or after any command.
struct GlobalOptions {
  int threads = 0;  // 0: every processor this process may use
  uint64_t seed = 0;
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  bool no_color = false;
};

// What a running command is handed.
struct CommandContext {
  const GlobalOptions& options;
  const Environment& environment;
  Progress& progress;
  bool color = false;        // standard output is a terminal that wants colours
  std::string command_line;  // as typed, for the record an artifact keeps
};

struct CommandExample {
  std::string line;
  std::string says;
};

using RunCommand =
    std::function<int(CommandContext&)>;  // the exit code; trouble is thrown as Failure

struct Command {
  std::string name;
  std::string summary;      // one line, no full stop
  std::string description;  // sentences for the help and the man page
  std::vector<CommandExample> examples;
  // Adds the options to the command's own app; the returned function reads what they were set to.
  std::function<RunCommand(CLI::App&)> declare;
  bool hidden = false;
};

// Writes to standard output; throws Failure(kIo) when it cannot.
void print_out(std::string_view text);

}  // namespace spear
