// Runs the built program as a user would, in a cache of the test's own.
#pragma once

#include <string>
#include <vector>

#include "support/temporary_directory.h"

namespace spear::test {

struct ProgramResult {
  int status = 0;  // 128 + signal when one ended it
  std::string out;
  std::string err;
};

class ProgramRunner {
 public:
  ProgramRunner();
  // `input` is its standard input. `more` variables: "NAME=value".
  [[nodiscard]] ProgramResult run(const std::vector<std::string>& arguments,
                                  const std::string& input = {},
                                  const std::vector<std::string>& more = {}) const;
  [[nodiscard]] const TemporaryDirectory& folder() const { return folder_; }
  [[nodiscard]] std::string cache() const { return (folder_ / "cache").string(); }

 private:
  TemporaryDirectory folder_;
};

// What a shell command prints, and its status.
ProgramResult run_shell(const std::string& command);
bool program_exists(const std::string& name);

}  // namespace spear::test
