#include "cli/program_runner.h"

#include <cstdlib>
#include <filesystem>

#include <sys/wait.h>

#include "spear/base/atomic_file.h"

namespace spear::test {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// One run of the shell with the three streams in files: no pipe can fill up.
ProgramResult run_in(const TemporaryDirectory& folder, const std::string& command,
                     const std::string& input) {
  const std::filesystem::path in = folder.file("stdin", input);
  const std::filesystem::path out = folder / "stdout";
  const std::filesystem::path err = folder / "stderr";
  const int status = std::system((command + " < " + quoted(in.string()) + " > " +
                                  quoted(out.string()) + " 2> " + quoted(err.string()))
                                     .c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          read_text_file(out).value_or(""), read_text_file(err).value_or("")};
}

}  // namespace

ProgramRunner::ProgramRunner() = default;

ProgramResult ProgramRunner::run(const std::vector<std::string>& arguments,
                                 const std::string& input,
                                 const std::vector<std::string>& more) const {
  const TemporaryDirectory streams;
  std::string command = "env SPEAR_CACHE=" + quoted(cache());
  for (const std::string& variable : more) command += " " + quoted(variable);
  command += " " + quoted(SPEAR_PROGRAM);
  for (const std::string& argument : arguments) command += " " + quoted(argument);
  return run_in(streams, command, input);
}

ProgramResult run_shell(const std::string& command) {
  const TemporaryDirectory streams;
  return run_in(streams, "{ " + command + "; }", "");
}

bool program_exists(const std::string& name) {
  return run_shell("command -v " + name).status == 0;
}

}  // namespace spear::test
