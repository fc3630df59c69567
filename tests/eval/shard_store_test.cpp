#include "spear/eval/shard_store.h"

#include <chrono>
#include <fstream>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;
using test::TemporaryDirectory;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto raw = std::as_bytes(std::span(text));
  return {raw.begin(), raw.end()};
}

fs::path only_shard(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".shard") return entry.path();
  return {};
}

void flip_a_bit(const fs::path& file, uintmax_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(at));
  const char was = static_cast<char>(stream.get());
  stream.seekp(static_cast<std::streamoff>(at));
  stream.put(static_cast<char>(was ^ 1));
}

TEST(ShardStore, GivesBackWhatWasPutOnDiskAndInMemory) {
  const TemporaryDirectory root;
  for (const fs::path& where : {root.path(), fs::path()}) {
    ShardStore store(where, "key");
    EXPECT_FALSE(store.get(3, 5));
    store.put(3, bytes_of("hello"));
    EXPECT_EQ(store.get(3, 5), bytes_of("hello"));
    EXPECT_FALSE(store.get(3, 6));
    EXPECT_FALSE(store.get(2, 5));
  }
  EXPECT_EQ(ShardStore(root.path(), "key").get(3, 5), bytes_of("hello"));
  EXPECT_FALSE(ShardStore(root.path(), "another key").get(3, 5));
}

TEST(ShardStore, TakesADamagedPieceForAnAbsentOne) {
  const TemporaryDirectory root;
  ShardStore store(root.path(), "key");
  store.put(0, bytes_of("hello"));
  const fs::path file = only_shard(store.folder());
  const auto size = fs::file_size(file);
  for (uintmax_t at = 0; at < size; ++at) {
    flip_a_bit(file, at);
    EXPECT_FALSE(store.get(0, 5)) << at;
    store.put(0, bytes_of("hello"));
    ASSERT_TRUE(store.get(0, 5));
  }
  fs::resize_file(file, size - 1);
  EXPECT_FALSE(store.get(0, 5));
  fs::resize_file(file, 0);
  EXPECT_FALSE(store.get(0, 5));
}

TEST(ShardStore, TrimsTheLeastRecentlyUsedFirst) {
  const TemporaryDirectory root;
  root.file("stranger/notes.txt", "keep me");
  const auto now = fs::file_time_type::clock::now();
  std::vector<fs::path> folders;
  for (int i = 0; i < 3; ++i) {
    ShardStore store(root.path(), "key " + std::to_string(i));
    store.put(0, std::vector<std::byte>(1000));
    fs::last_write_time(store.folder() / "key.txt", now - std::chrono::hours(i == 1 ? 5 : 1));
    folders.push_back(store.folder());
  }
  EXPECT_LE(trim_shard_stores(root.path(), 2500), 2500u);
  EXPECT_TRUE(fs::exists(folders[0]));
  EXPECT_FALSE(fs::exists(folders[1]));
  EXPECT_TRUE(fs::exists(folders[2]));
  EXPECT_EQ(trim_shard_stores(root.path(), 0), 0u);
  EXPECT_FALSE(fs::exists(folders[0]));
  EXPECT_TRUE(fs::exists(root.path() / "stranger/notes.txt"));
}

TEST(ShardStore, GoesOnWhenItIsTrimmedMeanwhile) {
  const TemporaryDirectory root;
  ShardStore store(root.path(), "key");
  store.put(0, bytes_of("hello"));
  trim_shard_stores(root.path(), 0);
  EXPECT_FALSE(store.get(0, 5));
  store.put(1, bytes_of("again"));
  EXPECT_EQ(store.get(1, 5), bytes_of("again"));
}

TEST(ShardStore, OpeningAKeyMarksItUsed) {
  const TemporaryDirectory root;
  const fs::path stamp = ShardStore(root.path(), "key").folder() / "key.txt";
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(9);
  fs::last_write_time(stamp, old);
  const ShardStore again(root.path(), "key");
  EXPECT_GT(fs::last_write_time(stamp), old + std::chrono::hours(8));
}

}  // namespace
}  // namespace spear
