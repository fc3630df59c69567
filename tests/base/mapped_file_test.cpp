#include "spear/base/mapped_file.h"

#include <cstring>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/temporary_directory.h"

namespace spear {
namespace {

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const test::TemporaryDirectory directory;
  const auto path = directory.file("a", "hello");
  const MappedFile file = MappedFile::open(path).value();
  EXPECT_EQ(text_of(file), "hello");
  EXPECT_EQ(file.path(), path);
  EXPECT_FALSE(file.shrunk());
}

TEST(MappedFile, MovesItsMapping) {
  const test::TemporaryDirectory directory;
  MappedFile a = MappedFile::open(directory.file("a", "first")).value();
  MappedFile b = MappedFile::open(directory.file("b", "second")).value();
  MappedFile c = std::move(a);
  EXPECT_EQ(text_of(c), "first");
  b = std::move(c);
  EXPECT_EQ(text_of(b), "first");
  MappedFile empty;
  EXPECT_TRUE(empty.bytes().empty());
  empty = std::move(b);
  EXPECT_EQ(text_of(empty), "first");
}

TEST(MappedFile, KeepsTheOldBytesWhenAFileIsReplacedByRename) {
  const test::TemporaryDirectory directory;
  const auto path = directory.file("a", "old");
  const MappedFile file = MappedFile::open(path).value();
  std::filesystem::rename(directory.file("b", "new one"), path);
  EXPECT_EQ(text_of(file), "old");
  EXPECT_FALSE(file.shrunk());
}

TEST(MappedFile, NoticesThatTheFileWasCut) {
  const test::TemporaryDirectory directory;
  const auto path = directory.file("a", std::string(10000, 'x'));
  const MappedFile file = MappedFile::open(path).value();
  std::filesystem::resize_file(path, 100);
  EXPECT_TRUE(file.shrunk());
}

TEST(MappedFile, RefusesWhatCannotBeMapped) {
  const test::TemporaryDirectory directory;
  const auto code = [](const std::filesystem::path& path) {
    const auto file = MappedFile::open(path);
    EXPECT_FALSE(file);
    if (file) return ErrorCode::kInternal;
    EXPECT_NE(file.error().message.find(path.string()), std::string::npos);
    return file.error().code;
  };
  EXPECT_EQ(code(directory / "missing"), ErrorCode::kNotFound);
  EXPECT_EQ(code(directory.path()), ErrorCode::kIo) << "a folder";
  EXPECT_EQ(code(directory.file("empty", "")), ErrorCode::kBadFile);
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(code(directory / "pipe"), ErrorCode::kIo) << "a pipe without a writer must not hang";
}

TEST(MappedFile, ReleasedPagesCanBeReadAgain) {
  const test::TemporaryDirectory folder;
  std::string text(100000, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 251);
  const MappedFile file = MappedFile::open(folder.file("f", text)).value();
  const auto bytes = file.bytes();
  for (const auto& [begin, count] :
       {std::pair<size_t, size_t>{0, 100000}, {5, 3}, {4000, 9000}, {99999, 1}, {7, 0}}) {
    file.release(bytes.subspan(begin, count));
    EXPECT_EQ(std::memcmp(bytes.data(), text.data(), text.size()), 0);
  }
}

}  // namespace
}  // namespace spear
