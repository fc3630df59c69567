#include "spear/hub/child_process.h"

#include <chrono>
#include <string>

#include <gtest/gtest.h>

namespace spear {
namespace {

Result<ChildResult> shell(const std::string& script, std::vector<std::string> environment = {}) {
  return run_child({.arguments = {"/bin/sh", "-c", script},
                    .environment = std::move(environment),
                    .keep_going = {}});
}

TEST(RunChild, ReturnsStatusAndOutput) {
  const ChildResult result = shell("echo out; echo err >&2; exit 3").value();
  EXPECT_EQ(result.status, 3);
  EXPECT_EQ(result.output, "out\nerr\n");
  EXPECT_EQ(shell("kill -9 $$")->status, 137);
}

TEST(RunChild, PassesArgumentsAsTheyAre) {
  const auto result = run_child(
      {.arguments = {"/bin/echo", "$HOME; `ls`", "*"}, .environment = {}, .keep_going = {}});
  EXPECT_EQ(result->output, "$HOME; `ls` *\n");
}

TEST(RunChild, ReplacesVariables) {
  EXPECT_EQ(shell("echo $HOME", {"HOME=/elsewhere"})->output, "/elsewhere\n");
}

TEST(RunChild, KeepsTheEndOfALongOutput) {
  const ChildResult result = shell("seq 1 100000").value();
  EXPECT_LE(result.output.size(), size_t{16} * 1024);
  EXPECT_TRUE(result.output.ends_with("100000\n"));
}

TEST(RunChild, SaysThatTheProgramIsMissing) {
  const auto result =
      run_child({.arguments = {"no-such-program"}, .environment = {}, .keep_going = {}});
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kNotFound);
}

TEST(RunChild, EndsAChildThatIsNotWantedAnyMore) {
  const auto begin = std::chrono::steady_clock::now();
  const auto result = run_child(
      {.arguments = {"sleep", "60"}, .environment = {}, .keep_going = [] { return false; }});
  EXPECT_TRUE(result->stopped);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

}  // namespace
}  // namespace spear
