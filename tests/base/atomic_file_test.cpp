#include "spear/base/atomic_file.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/temporary_directory.h"

namespace spear {
namespace {

std::string contents(const std::filesystem::path& path) {
  return value_or_throw(read_text_file(path));
}

size_t files_in(const std::filesystem::path& folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

// Runs `body` in a child process; its exit status, or -1 when it was killed.
template <class Body>
int in_child(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(AtomicFile, ShowsNothingBeforeCommitAndAllAfter) {
  const test::TemporaryDirectory directory;
  const auto target = directory / "model.spear";
  AtomicFile file(target);
  file.write("hea");
  file.write("der and body");
  file.write_at(0, std::as_bytes(std::span(std::string_view("HEA"))));
  EXPECT_EQ(file.size(), 15u);
  EXPECT_FALSE(std::filesystem::exists(target));
  file.commit();
  EXPECT_EQ(contents(target), "HEAder and body");
  EXPECT_EQ(files_in(directory.path()), 1u);
}

TEST(AtomicFile, LeavesTheOldFileWhenItIsNotCommitted) {
  const test::TemporaryDirectory directory;
  const auto target = directory.file("a", "old");
  { AtomicFile(target).write("new"); }
  EXPECT_EQ(contents(target), "old");
  EXPECT_EQ(files_in(directory.path()), 1u);
  write_file_atomically(target, "newer");
  EXPECT_EQ(contents(target), "newer");
}

TEST(AtomicFile, TwoWritersOfOneTargetDoNotMix) {
  const test::TemporaryDirectory directory;
  const auto target = directory / "a";
  AtomicFile first(target);
  AtomicFile second(target);
  first.write("first");
  second.write("second!");
  first.commit();
  EXPECT_EQ(contents(target), "first");
  second.commit();
  EXPECT_EQ(contents(target), "second!");
  EXPECT_EQ(files_in(directory.path()), 1u);
}

TEST(AtomicFile, NamesTheFileThatCannotBeCreated) {
  const test::TemporaryDirectory directory;
  try {
    AtomicFile file(directory / "no/such/folder/model.spear");
    FAIL() << "created";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kIo);
    EXPECT_NE(failure.error().message.find("no/such/folder/model.spear"), std::string::npos);
  }
}

TEST(AtomicFile, RefusesToReplaceAFolderAndCleansUp) {
  const test::TemporaryDirectory directory;
  directory.file("folder/inside", "x");
  EXPECT_THROW(write_file_atomically(directory / "folder", "text"), Failure);
  EXPECT_EQ(contents(directory / "folder/inside"), "x");
  EXPECT_EQ(files_in(directory.path()), 1u);
}

// A child replaces the file over and over and is killed at some moment: the file is one of the
// whole versions.
TEST(AtomicFile, AKillLeavesTheOldBytesOrTheNewOnes) {
  const test::TemporaryDirectory directory;
  const std::string versions[2] = {std::string(100000, 'a'), std::string(150000, 'b')};
  const auto target = directory.file("a", versions[0]);
  int changed = 0;
  for (int round = 0; round < 30; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = round;; ++i) {
        AtomicFile file(target);
        const std::string& text = versions[i % 2];
        for (size_t at = 0; at < text.size(); at += 5000) file.write(text.substr(at, 5000));
        file.commit();
      }
    }
    ::usleep(static_cast<useconds_t>(500 + 317 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string now = contents(target);
    ASSERT_TRUE(now == versions[0] || now == versions[1])
        << "round " << round << ": " << now.size();
    changed += now == versions[1] ? 1 : 0;
  }
  EXPECT_GT(changed, 0) << "no kill came after a commit: the test proved nothing";
}

// Writes 1 MiB over `target`, which has no room for it: 0 when that failed as it should.
int refused_for_space(const std::filesystem::path& target, const char* reason) {
  try {
    write_file_atomically(target, std::string(1 << 20, 'n'));
    return 1;
  } catch (const Failure& failure) {
    if (failure.error().code != ErrorCode::kIo) return 2;
    if (failure.error().message.find(reason) == std::string::npos) return 3;
  }
  if (contents(target) != "old") return 4;
  return files_in(target.parent_path()) == 1 ? 0 : 5;
}

TEST(AtomicFile, AFileSizeLimitIsReportedAndTheOldFileStays) {
  const test::TemporaryDirectory directory;
  const auto target = directory.file("a", "old");
  EXPECT_EQ(in_child([&] {
              std::signal(SIGXFSZ, SIG_IGN);
              const rlimit limit{100000, 100000};
              if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
              return refused_for_space(target, "File too large");
            }),
            0);
}

TEST(AtomicFile, AFullDiskIsReportedAndTheOldFileStays) {
  constexpr int kNoMount = 77;
  const test::TemporaryDirectory directory;
  const int status = in_child([&] {
    // A file system of 128 KiB that only this child sees.
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return kNoMount;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNoMount;
    if (::mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=128k") != 0) return kNoMount;
    return refused_for_space(directory.file("a", "old"), "No space left on device");
  });
  if (status == kNoMount) GTEST_SKIP() << "this user may not mount a small file system";
  EXPECT_EQ(status, 0);
}

TEST(ReadTextFile, ReadsTheWholeFile) {
  const test::TemporaryDirectory directory;
  const std::string text = std::string("a\0b\r\n", 5) + std::string(100000, 'x');
  EXPECT_EQ(contents(directory.file("a", text)), text);
  EXPECT_EQ(contents(directory.file("empty", "")), "");
}

TEST(ReadTextFile, RefusesMissingFoldersAndLongFiles) {
  const test::TemporaryDirectory directory;
  EXPECT_EQ(read_text_file(directory / "missing").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_text_file(directory.path()).error().code, ErrorCode::kIo);
  const auto path = directory.file("long", "12345");
  EXPECT_TRUE(read_text_file(path, 5));
  const auto refused = read_text_file(path, 4);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kBadFile);
  EXPECT_NE(refused.error().message.find("5 bytes, at most 4"), std::string::npos);
}

}  // namespace
}  // namespace spear
