// The program's options as CLI11 knows them, built from all_commands(): parsing, help, completions
// and the man page all come from this one object.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "spear/cli/command.h"

namespace spear {

class Application {
 public:
  Application();
  ~Application();
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  struct Parsed {
    std::string text;   // a help or version text that was asked for, or the error
    int status = 0;     // 0 or 2
    bool done = false;  // nothing is to be run
    std::string command;
  };
  Parsed parse(int argc, const char* const* argv);

  [[nodiscard]] const GlobalOptions& options() const { return options_; }
  [[nodiscard]] const std::vector<Command>& commands() const { return commands_; }
  [[nodiscard]] CLI::App& app() { return *app_; }
  int run(const std::string& command, CommandContext& context) {
    return runs_.at(command)(context);
  }

 private:
  std::string help(const std::string& name);  // of the program when there is no such command
  [[nodiscard]] std::string advice(const std::vector<std::string>& arguments) const;

  std::unique_ptr<CLI::App> app_;
  GlobalOptions options_;
  std::vector<Command> commands_;
  std::map<std::string, RunCommand> runs_;
};

std::string version_text();  // "spear 0.1.0"

}  // namespace spear
