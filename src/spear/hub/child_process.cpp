#include "spear/hub/child_process.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace spear {
namespace {

constexpr size_t kKeptOutput = 16 * 1024;
constexpr int kTickMs = 200;
constexpr auto kGrace = std::chrono::seconds(3);  // between SIGTERM and SIGKILL

class Pipe {
 public:
  Pipe() {
    if (pipe2(ends_, O_CLOEXEC) != 0)
      throw Failure(ErrorCode::kIo, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close(ends_[0]);
    close_write();
  }
  [[nodiscard]] int read_end() const { return ends_[0]; }
  [[nodiscard]] int write_end() const { return ends_[1]; }
  void close_write() {
    if (ends_[1] >= 0) close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  int ends_[2] = {-1, -1};
};

// The parent's variables, with those of `extra` put in their place.
std::vector<std::string> merged_environment(const std::vector<std::string>& extra) {
  std::vector<std::string> merged = extra;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view own = *entry;
    const std::string_view name = own.substr(0, own.find('=') + 1);
    bool replaced = false;
    for (const std::string& e : extra) replaced = replaced || e.starts_with(name);
    if (!replaced) merged.emplace_back(own);
  }
  return merged;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& s : strings) list.push_back(s.data());
  list.push_back(nullptr);
  return list;
}

Result<pid_t> spawn(const ChildOptions& options, int output) {
  std::vector<std::string> arguments = options.arguments;
  std::vector<std::string> environment = merged_environment(options.environment);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  posix_spawnattr_t attributes;  // we ignore SIGPIPE; the child must not inherit that
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, arguments[0].c_str(), &actions, &attributes,
                                 pointers(arguments).data(), pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT)
    return fail(ErrorCode::kNotFound, fmt::format("{}: no such program", arguments[0]));
  if (error != 0)
    return fail(ErrorCode::kIo,
                fmt::format("{}: cannot be started: {}", arguments[0], std::strerror(error)));
  return pid;
}

// Reads what is there; false at the end of the output.
bool drain(int fd, std::string& output) {
  std::array<char, 4096> buffer;
  const ssize_t n = read(fd, buffer.data(), buffer.size());
  if (n <= 0) return n < 0 && errno == EINTR;
  output.append(buffer.data(), static_cast<size_t>(n));
  if (output.size() > 2 * kKeptOutput) output.erase(0, output.size() - kKeptOutput);
  return true;
}

int decoded(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// SIGTERM, and SIGKILL for a child that does not listen.
int terminate(pid_t pid) {
  int status = 0;
  kill(pid, SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + kGrace;
  while (std::chrono::steady_clock::now() < deadline) {
    if (waitpid(pid, &status, WNOHANG) == pid) return decoded(status);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  return decoded(status);
}

}  // namespace

Result<ChildResult> run_child(const ChildOptions& options) {
  Pipe pipe;
  const Result<pid_t> pid = spawn(options, pipe.write_end());
  if (!pid) return tl::unexpected(pid.error());
  pipe.close_write();

  ChildResult result;
  bool open = true;
  while (open) {
    pollfd watched{.fd = pipe.read_end(), .events = POLLIN, .revents = 0};
    if (poll(&watched, 1, kTickMs) > 0) open = drain(pipe.read_end(), result.output);
    if (options.keep_going && !options.keep_going()) {
      result.status = terminate(*pid);
      result.stopped = true;
      return result;
    }
  }
  int status = 0;
  while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
  }
  result.status = decoded(status);
  if (result.output.size() > kKeptOutput)
    result.output.erase(0, result.output.size() - kKeptOutput);
  return result;
}

}  // namespace spear
