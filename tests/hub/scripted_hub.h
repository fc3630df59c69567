// Runs hub_server.py for the tests of a process: a hub on 127.0.0.1 that can be told to misbehave.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

namespace spear::test {

class ScriptedHub {
 public:
  explicit ScriptedHub(const std::filesystem::path& folder);  // keeps its request log there
  ScriptedHub(const ScriptedHub&) = delete;
  ScriptedHub& operator=(const ScriptedHub&) = delete;
  ~ScriptedHub();

  [[nodiscard]] bool running() const { return port_ > 0; }
  [[nodiscard]] std::string endpoint(const std::string& scenario) const;
  // The JSON lines of the requests so far that contain `text`.
  [[nodiscard]] std::vector<std::string> requests(const std::string& text) const;

 private:
  std::filesystem::path log_;
  pid_t pid_ = -1;
  int input_ = -1;  // closing it ends the server
  int port_ = 0;
};

}  // namespace spear::test
