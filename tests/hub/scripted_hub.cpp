#include "hub/scripted_hub.h"

#include <cstdlib>
#include <fstream>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace spear::test {
namespace {

std::string read_line(int fd) {
  std::string line;
  char c = 0;
  while (read(fd, &c, 1) == 1 && c != '\n') line += c;
  return line;
}

}  // namespace

ScriptedHub::ScriptedHub(const std::filesystem::path& folder) : log_(folder / "requests.jsonl") {
  setenv("no_proxy", "127.0.0.1", 1);  // a proxy of the machine is not asked for ourselves
  int input[2];
  int output[2];
  if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) return;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  std::string script = SPEAR_SOURCE_DIR "/tests/hub/hub_server.py";
  std::string log = log_.string();
  std::string python = "python3";
  char* arguments[] = {python.data(), script.data(), log.data(), nullptr};
  if (posix_spawnp(&pid_, python.c_str(), &actions, nullptr, arguments, environ) != 0) pid_ = -1;
  posix_spawn_file_actions_destroy(&actions);
  close(input[0]);
  close(output[1]);
  input_ = input[1];
  if (pid_ > 0) port_ = std::atoi(read_line(output[0]).c_str());
  close(output[0]);
}

ScriptedHub::~ScriptedHub() {
  close(input_);
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

std::string ScriptedHub::endpoint(const std::string& scenario) const {
  return "http://127.0.0.1:" + std::to_string(port_) + "/" + scenario;
}

std::vector<std::string> ScriptedHub::requests(const std::string& text) const {
  std::vector<std::string> found;
  std::ifstream file(log_);
  for (std::string line; std::getline(file, line);)
    if (line.find(text) != std::string::npos) found.push_back(line);
  return found;
}

}  // namespace spear::test
