#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/hub/pull.h"

#include "hub/scripted_hub.h"
#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWeightBytes = 300000;

// Stops the work once it has counted some bytes; never when `after` is negative.
class StoppingProgress final : public Progress {
 public:
  explicit StoppingProgress(int64_t after = -1) : after_(after) {}
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t, std::string_view) override { ++calls_; }
  void end() override {}
  [[nodiscard]] bool stop_requested() const override { return after_ >= 0 && calls_ > after_; }

 private:
  int64_t after_;
  int64_t calls_ = 0;
};

class HubPull : public testing::Test {
 protected:
  void SetUp() override {
    hub_ = std::make_unique<test::ScriptedHub>(folder_.path());
    if (!hub_->running()) GTEST_SKIP() << "python3, which runs the scripted hub, is not installed";
  }

  PullOutcome pull(const std::string& scenario, const std::string& name) {
    return pull(scenario, name, progress_, false);
  }
  PullOutcome pull(const std::string& scenario, const std::string& name, Progress& progress,
                   bool force) {
    env_.cache_dir = folder_ / "cache";
    env_.hub_endpoint = hub_->endpoint(scenario);
    PullOptions options;
    options.force = force;
    options.hub.first_wait = std::chrono::milliseconds(1);
    options.hub.attempts = 4;
    return pull_model(name, options, env_, progress);
  }
  Error refusal(const std::string& scenario, const std::string& name) {
    try {
      pull(scenario, name);
    } catch (const Failure& failure) {
      return failure.error();
    }
    return {ErrorCode::kInternal, "nothing was refused"};
  }
  void expect_refused(const std::string& scenario, const std::string& name, ErrorCode code,
                      const std::string& words) {
    const Error error = refusal(scenario, name);
    EXPECT_EQ(static_cast<int>(error.code), static_cast<int>(code)) << error.message;
    EXPECT_NE(error.message.find(words), std::string::npos) << error.message;
    EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
    EXPECT_TRUE(ModelCache(env_.cache_dir).list().empty());
  }
  [[nodiscard]] fs::path staged(const std::string& file) const {
    return ModelCache(env_.cache_dir).staging_folder("acme/tiny") / file;
  }

  test::TemporaryDirectory folder_;
  std::unique_ptr<test::ScriptedHub> hub_;
  Environment env_;
  StoppingProgress progress_;
};

TEST_F(HubPull, TakesTheNeededFilesAndNoOthers) {
  const PulledModel model = pull("plain", "acme/tiny").model;
  EXPECT_EQ(model.path(), model.folder);
  EXPECT_EQ(model.licence, "apache-2.0");
  EXPECT_EQ(model.revision, "0123456789abcdef0123456789abcdef01234567");
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(model.folder))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"LICENSE", "config.json", "model.safetensors",
                                             "spear-model.json", "tokenizer.json",
                                             "tokenizer_config.json"}));
  EXPECT_EQ(fs::file_size(model.folder / "model.safetensors"), static_cast<size_t>(kWeightBytes));
  for (const PulledFile& file : model.files)
    EXPECT_EQ(file.sha256, sha256_of_file(model.folder / file.name).value());
  EXPECT_FALSE(fs::exists(staged("")));
}

TEST_F(HubPull, TakesTheShardsOfAnIndexAndNoSecondCopy) {
  const PulledModel model = pull("plain", "acme/sharded").model;
  EXPECT_TRUE(fs::exists(model.folder / "model-00002-of-00002.safetensors"));
  EXPECT_TRUE(fs::exists(model.folder / "model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(model.folder / "consolidated.safetensors"));
}

TEST_F(HubPull, TakesOneNamedFileEvenFromAFolder) {
  EXPECT_EQ(pull("plain", "acme/gguf:q4.gguf").model.path().filename(), "q4.gguf");
  const PulledModel model = pull("plain", "acme/gguf:sub/q8.gguf").model;
  EXPECT_EQ(fs::file_size(model.path()), 5000U);
  EXPECT_EQ(resolve_model("acme/gguf:sub/q8.gguf", env_).value(), model.path());
}

TEST_F(HubPull, DownloadsNothingWhenTheCommitIsHere) {
  EXPECT_FALSE(pull("plain", "acme/tiny").was_here);
  const size_t before = hub_->requests("/resolve/").size();
  EXPECT_TRUE(pull("plain", "acme/tiny").was_here);
  EXPECT_EQ(hub_->requests("/resolve/").size(), before);
  EXPECT_FALSE(pull("plain", "acme/tiny", progress_, true).was_here);
  EXPECT_GT(hub_->requests("/resolve/").size(), before);
}

TEST_F(HubPull, EncodesTheRevision) {
  pull("plain", "acme/tiny@refs/pr/1");
  EXPECT_EQ(hub_->requests("/revision/refs%2Fpr%2F1?").size(), 1U);
}

TEST_F(HubPull, ContinuesWhereAConnectionBroke) {
  const PulledModel model = pull("cut", "acme/tiny").model;
  EXPECT_EQ(fs::file_size(model.folder / "model.safetensors"), static_cast<size_t>(kWeightBytes));
  EXPECT_GE(hub_->requests("\"range\": \"bytes=").size(), 3U);
}

TEST_F(HubPull, StartsAnewWhereTheServerIgnoresRanges) {
  const PulledModel model = pull("norange", "acme/tiny").model;
  EXPECT_EQ(fs::file_size(model.folder / "model.safetensors"), static_cast<size_t>(kWeightBytes));
}

TEST_F(HubPull, StartsAnewWhereTheServerContinuesElsewhere) {
  const PulledModel model = pull("misplaced", "acme/tiny").model;
  EXPECT_EQ(fs::file_size(model.folder / "model.safetensors"), static_cast<size_t>(kWeightBytes));
}

TEST_F(HubPull, GivesUpOnAConnectionThatNeverBringsAByte) {
  expect_refused("dead", "acme/tiny", ErrorCode::kNetwork, "connection");
}

TEST_F(HubPull, RefusesAWrongChecksumAfterASecondTry) {
  expect_refused("wrong", "acme/tiny", ErrorCode::kBadFile, "sha256");
  EXPECT_FALSE(fs::exists(staged("model.safetensors.part")));
  EXPECT_EQ(hub_->requests("\"server\": \"storage\"").size(), 2U);
}

TEST_F(HubPull, DownloadsAgainWhatArrivedDamaged) {
  const PulledModel model = pull("wrongonce", "acme/tiny").model;
  EXPECT_EQ(model.files.back().sha256,
            sha256_of_file(model.folder / model.files.back().name).value());
}

TEST_F(HubPull, RefusesMoreBytesThanAnnounced) {
  expect_refused("toolong", "acme/tiny", ErrorCode::kNetwork, "does not continue");
}

TEST_F(HubPull, RefusesWhatChangedUnderway) {
  expect_refused("changed", "acme/tiny", ErrorCode::kBadFile, "the revision changed");
}

TEST_F(HubPull, WorksWithAHubThatPublishesNoSizes) {
  const PulledModel model = pull("noblobs", "acme/tiny").model;
  EXPECT_EQ(fs::file_size(model.folder / "model.safetensors"), static_cast<size_t>(kWeightBytes));
}

TEST_F(HubPull, ChecksAgainstTheTagOfTheAnswerWhereTheListingHasNoDigest) {
  expect_refused("noblobswrong", "acme/tiny", ErrorCode::kBadFile, "sha256");
}

TEST_F(HubPull, WaitsForABusyHub) {
  EXPECT_FALSE(pull("busy", "acme/tiny").was_here);
}

TEST_F(HubPull, SendsTheTokenToTheHubAlone) {
  env_.hub_token = "right";
  pull("private", "acme/tiny");
  EXPECT_FALSE(hub_->requests("\"server\": \"hub\"").empty());
  for (const std::string& request : hub_->requests("\"server\": \"hub\""))
    EXPECT_NE(request.find("Bearer right"), std::string::npos) << request;
  EXPECT_FALSE(hub_->requests("\"server\": \"storage\"").empty());
  for (const std::string& request : hub_->requests("\"server\": \"storage\""))
    EXPECT_EQ(request.find("Bearer"), std::string::npos) << request;
}

TEST_F(HubPull, ExplainsRefusals) {
  expect_refused("401", "acme/tiny", ErrorCode::kUsage, "set HF_TOKEN");
  expect_refused("403", "acme/tiny", ErrorCode::kUsage, "refuses access (403)");
  expect_refused("gated", "acme/tiny", ErrorCode::kUsage, "accept its conditions at http://");
  expect_refused("404", "acme/tiny", ErrorCode::kNotFound, "not found");
  expect_refused("429", "acme/tiny", ErrorCode::kNetwork, "too many requests");
  expect_refused("500", "acme/tiny", ErrorCode::kNetwork, "HTTP status 500");
  expect_refused("loop", "acme/tiny", ErrorCode::kNetwork, "redirects");
  expect_refused("plain", "acme/absent", ErrorCode::kNotFound, "spelling of org/name");
  expect_refused("plain", "acme/tiny@nosuch", ErrorCode::kNotFound, "no such revision");
  env_.hub_token = "wrong";
  expect_refused("private", "acme/tiny", ErrorCode::kUsage, "does not accept the token");
}

TEST_F(HubPull, SaysWhatARepositoryHasInstead) {
  expect_refused("plain", "acme/gguf", ErrorCode::kNotFound, "spear pull acme/gguf:q4.gguf");
  expect_refused("plain", "acme/gguf:q5.gguf", ErrorCode::kNotFound, "q4.gguf, sub/q8.gguf");
  expect_refused("plain", "acme/torch", ErrorCode::kNotFound, "only PyTorch .bin files");
  expect_refused("plain", "acme/tiny:config.json", ErrorCode::kUsage, "must be a .gguf");
}

TEST_F(HubPull, RefusesWhatIsNoHub) {
  expect_refused("html", "acme/tiny", ErrorCode::kBadFile, "not valid JSON");
  expect_refused("badsha", "acme/tiny", ErrorCode::kBadFile, "a commit of 40 digits");
  expect_refused("endless", "acme/tiny", ErrorCode::kBadFile, "longer than");
}

TEST_F(HubPull, WritesNothingOutsideItsFolder) {
  const PulledModel model = pull("hostile", "acme/tiny").model;
  EXPECT_EQ(model.files.size(), 5U);
  EXPECT_EQ(hub_->requests("etc").size(), 0U);
}

TEST_F(HubPull, ResumesAfterAnInterruption) {
  StoppingProgress stopping(20);
  try {
    pull("slow", "acme/tiny", stopping, false);
    FAIL() << "was not interrupted";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kInterrupted);
  }
  const uintmax_t kept = fs::file_size(staged("model.safetensors.part"));
  EXPECT_GT(kept, 0U);
  EXPECT_LT(kept, static_cast<uintmax_t>(kWeightBytes));
  const PulledModel model = pull("plain", "acme/tiny").model;
  EXPECT_EQ(fs::file_size(model.folder / "model.safetensors"), static_cast<size_t>(kWeightBytes));
  EXPECT_EQ(hub_->requests("\"range\": \"bytes=" + std::to_string(kept) + "-\"").size(), 2U)
      << "one from the hub, one from the storage";
  EXPECT_EQ(hub_->requests("plain/acme/tiny/resolve/").size(), 1U)
      << "complete files are not downloaded again";
}

TEST_F(HubPull, ChecksWhatAnEarlierPullLeft) {
  StoppingProgress stopping(20);
  EXPECT_THROW(pull("slow", "acme/tiny", stopping, false), Failure);
  std::fstream part(staged("model.safetensors.part"),
                    std::ios::in | std::ios::out | std::ios::binary);
  part.put('!');
  part.close();
  const PulledModel model = pull("plain", "acme/tiny").model;
  EXPECT_EQ(model.files.back().sha256,
            sha256_of_file(model.folder / model.files.back().name).value());
}

TEST_F(HubPull, DropsThePartsOfAnotherCommit) {
  StoppingProgress stopping(20);
  EXPECT_THROW(pull("slow", "acme/tiny", stopping, false), Failure);
  write_file_atomically(staged("commit"), "another");
  pull("plain", "acme/tiny");
  EXPECT_TRUE(hub_->requests("plain/acme/tiny/resolve/").size() > 1);
  EXPECT_EQ(hub_->requests("\"range\": \"bytes=").size(), 0U);
}

TEST_F(HubPull, LetsOnlyOnePullAtATimeHaveAModel) {
  env_.cache_dir = folder_ / "cache";
  const auto lock = CacheLock::take(ModelCache(env_.cache_dir).lock_file("acme/tiny"));
  ASSERT_TRUE(lock.has_value());
  expect_refused("plain", "acme/tiny", ErrorCode::kIo, std::to_string(getpid()));
}

TEST_F(HubPull, RefusesAnEndpointThatIsNoAddress) {
  env_.cache_dir = folder_ / "cache";
  env_.hub_endpoint = "file:///etc";
  EXPECT_THROW(pull_model("acme/tiny", {}, env_, progress_), Failure);
  env_.hub_endpoint = "http://127.0.0.1:1";
  PullOptions options;
  options.hub.attempts = 2;
  options.hub.first_wait = std::chrono::milliseconds(1);
  try {
    pull_model("acme/tiny", options, env_, progress_);
    FAIL() << "nothing listens there";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kNetwork);
    EXPECT_NE(failure.error().message.find("HF_ENDPOINT"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
