#include "support/temporary_directory.h"

#include <gtest/gtest.h>

namespace spear::test {
namespace {

TEST(TemporaryDirectory, IsFreshAndGoesAwayWithItsContents) {
  std::filesystem::path path;
  {
    const TemporaryDirectory directory;
    const TemporaryDirectory other;
    path = directory.path();
    EXPECT_NE(path, other.path());
    EXPECT_TRUE(std::filesystem::is_empty(path));
    EXPECT_EQ(std::filesystem::file_size(directory.file("a/b/c.txt", "four")), 4u);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace spear::test
