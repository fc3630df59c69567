// Runs another program without a shell, collects the end of what it prints, and stops it when
// asked. Used for the ordinary package client. One caller per call, any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "spear/base/error.h"

namespace spear {

struct ChildOptions {
  std::vector<std::string> arguments;    // [0] is the program, looked up in PATH
  std::vector<std::string> environment;  // "NAME=value", on top of this process's own
  std::function<bool()> keep_going;      // asked some five times a second; false ends the child
};

struct ChildResult {
  int status = 0;        // the exit status; 128 + signal when a signal ended it
  bool stopped = false;  // keep_going() said no
  std::string output;    // the last 16 KiB of its standard output and error
};

// kNotFound when the program is not installed; kIo when no process can be started.
Result<ChildResult> run_child(const ChildOptions& options);

}  // namespace spear
