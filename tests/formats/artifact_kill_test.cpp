// A process that replaces an artifact again and again is killed at random moments: what stands
// there afterwards is a whole artifact, one of those that were written.
#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spear/base/rng.h"
#include "spear/formats/artifact.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

void write_generation(const std::filesystem::path& path, int generation) {
  ArtifactWriter writer(path);
  writer.add_section("generation", std::to_string(generation));
  const std::string block(size_t{1} << 16, static_cast<char>('a' + generation % 26));
  for (int i = 0; i < 8; ++i) writer.add_section("block" + std::to_string(i), block);
  writer.commit();
}

// Never returns: replaces the file until it is killed. No test machinery may run in the child.
[[noreturn]] void replace_forever(const std::filesystem::path& path, int first) {
  for (int generation = first;; ++generation) write_generation(path, generation);
}

TEST(ArtifactKill, LeavesTheOldOrTheNewFile) {
  const test::TemporaryDirectory folder;
  const auto path = folder.path() / "m.spear";
  write_generation(path, 0);
  Rng rng(7);
  int replaced = 0;
  int last = 0;
  for (int round = 1; round <= 20; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) replace_forever(path, round * 100000);
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(20000)));
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself";
    const auto artifact = Artifact::open(path);
    ASSERT_TRUE(artifact.has_value()) << artifact.error().message;
    ASSERT_TRUE(artifact->verify().has_value());
    const int generation = std::stoi(std::string(artifact->text("generation").value()));
    ASSERT_TRUE(generation == last || generation / 100000 == round) << generation;
    replaced += generation != last ? 1 : 0;
    last = generation;
  }
  EXPECT_GT(replaced, 0);  // else the kills came too early to prove anything
}

}  // namespace
}  // namespace spear
