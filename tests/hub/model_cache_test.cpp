#include "spear/hub/model_cache.h"

#include <algorithm>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/hub/pull.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

PulledModel publish(const ModelCache& cache, const std::string& name, const std::string& bytes) {
  const fs::path staging = cache.staging_folder(name);
  fs::create_directories(staging);
  write_file_atomically(staging / "m.gguf", bytes);
  return cache.publish({.name = name,
                        .source = "a test",
                        .revision = "1",
                        .licence = "MIT",
                        .entry = "m.gguf",
                        .files = {{"m.gguf", static_cast<int64_t>(bytes.size()), "0"}},
                        .folder = {}});
}

TEST(ModelCache, FindsWhatWasPublished) {
  const test::TemporaryDirectory folder;
  const ModelCache cache(folder.path());
  EXPECT_TRUE(cache.list().empty());
  publish(cache, "b/x:m.gguf", "123");
  publish(cache, "a", "4567");
  const std::vector<PulledModel> models = cache.list();
  ASSERT_EQ(models.size(), 2U);
  EXPECT_EQ(models[0].name, "a");
  EXPECT_EQ(models[1].name, "b/x:m.gguf");
  EXPECT_EQ(models[0].bytes(), 4);
  EXPECT_EQ(fs::file_size(cache.find("b/x:m.gguf")->path()), 3U);
  EXPECT_FALSE(cache.find("b--x--m.gguf").has_value()) << "a folder's name is not a model's";
}

TEST(ModelCache, ReplacesAnOlderModelWhole) {
  const test::TemporaryDirectory folder;
  const ModelCache cache(folder.path());
  publish(cache, "a", "old");
  publish(cache, "a", "newer");
  EXPECT_EQ(cache.find("a")->bytes(), 5);
  EXPECT_FALSE(fs::exists(cache.staging_folder("a")));
}

TEST(ModelCache, SaysThatAFileIsGoneOrHasAnotherSize) {
  const test::TemporaryDirectory folder;
  const ModelCache cache(folder.path());
  const PulledModel model = publish(cache, "a", "123");
  fs::resize_file(model.path(), 2);
  const auto cut = cache.find("a");
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::kBadFile);
  EXPECT_NE(cut.error().message.find("3 bytes expected, found 2"), std::string::npos);
  fs::remove(model.path());
  EXPECT_NE(cache.find("a").error().message.find("no such file"), std::string::npos);
}

TEST(ModelCache, SkipsDescriptionsItCannotRead) {
  const test::TemporaryDirectory folder;
  const ModelCache cache(folder.path());
  publish(cache, "good", "1");
  folder.file("models/broken/spear-model.json", "{");
  folder.file("models/empty/x", "1");
  folder.file(
      "models/escape/spear-model.json",
      R"({"name":"escape","source":"","revision":"","licence":"","entry":"../../x","files":[]})");
  folder.file("models/types/spear-model.json", R"({"name":1})");
  EXPECT_EQ(cache.list().size(), 1U);
  EXPECT_EQ(cache.find("escape").error().code, ErrorCode::kBadFile);
}

TEST(ModelCache, RemovesAModelAndItsParts) {
  const test::TemporaryDirectory folder;
  const ModelCache cache(folder.path());
  publish(cache, "a", "1");
  fs::create_directories(cache.staging_folder("a"));
  EXPECT_TRUE(cache.remove("a").has_value());
  EXPECT_FALSE(fs::exists(cache.staging_folder("a")));
  EXPECT_TRUE(cache.list().empty());
  EXPECT_EQ(cache.remove("a").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(cache.remove("").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(cache.remove("../models").error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(fs::exists(folder.path()));
}

TEST(CacheLock, ExcludesASecondHolder) {
  const test::TemporaryDirectory folder;
  {
    const auto first = CacheLock::take(folder / "lock");
    ASSERT_TRUE(first.has_value());
    EXPECT_EQ(CacheLock::take(folder / "lock").error().code, ErrorCode::kIo);
  }
  EXPECT_TRUE(CacheLock::take(folder / "lock").has_value());
}

TEST(ResolveModel, TakesPathsFirstThenNames) {
  const test::TemporaryDirectory folder;
  Environment env;
  env.cache_dir = folder / "cache";
  const PulledModel model = publish(ModelCache(env.cache_dir), "tiny", "1");
  EXPECT_EQ(resolve_model("tiny", env).value(), model.path());
  const fs::path file = folder.file("local.gguf", "1");
  EXPECT_EQ(resolve_model(file.string(), env).value(), file);
}

TEST(ResolveModel, SaysWhatThereIsAndHowToPull) {
  const test::TemporaryDirectory folder;
  Environment env;
  env.cache_dir = folder / "cache";
  publish(ModelCache(env.cache_dir), "tiny", "1");
  for (const char* name : {"tinny", "", "..", "/nowhere/x.gguf"}) {
    const auto path = resolve_model(name, env);
    if (std::string(name) == "..") {
      EXPECT_TRUE(path.has_value()) << "a folder that exists";
      continue;
    }
    ASSERT_FALSE(path.has_value()) << name;
    EXPECT_EQ(path.error().code, ErrorCode::kNotFound);
    EXPECT_NE(path.error().message.find("pulled models: tiny"), std::string::npos);
    EXPECT_NE(path.error().message.find("spear pull NAME"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
