#include "spear/base/env.h"

#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

namespace spear {
namespace {

// Sets variables (nullopt: unsets) and puts back what was there.
class ScopedVariables {
 public:
  explicit ScopedVariables(const std::map<std::string, std::optional<std::string>>& values) {
    for (const auto& [name, value] : values) {
      const char* old = std::getenv(name.c_str());
      old_[name] = old != nullptr ? std::optional<std::string>(old) : std::nullopt;
      set(name, value);
    }
  }
  ScopedVariables(const ScopedVariables&) = delete;
  ScopedVariables& operator=(const ScopedVariables&) = delete;
  ~ScopedVariables() {
    for (const auto& [name, value] : old_) set(name, value);
  }

 private:
  static void set(const std::string& name, const std::optional<std::string>& value) {
    if (value)
      ::setenv(name.c_str(), value->c_str(), 1);
    else
      ::unsetenv(name.c_str());
  }
  std::map<std::string, std::optional<std::string>> old_;
};

TEST(Environment, HasDefaults) {
  const ScopedVariables variables({{"SPEAR_CACHE", {}},
                                   {"XDG_CACHE_HOME", {}},
                                   {"HOME", "/home/someone"},
                                   {"HF_TOKEN", {}},
                                   {"HF_ENDPOINT", {}},
                                   {"SPEAR_FORCE_KERNEL", {}},
                                   {"SPEAR_PYTHON", {}}});
  const Environment env = read_environment();
  EXPECT_EQ(env.cache_dir, "/home/someone/.cache/spear");
  EXPECT_EQ(env.hub_token, "");
  EXPECT_EQ(env.hub_endpoint, "https://huggingface.co");
  EXPECT_EQ(env.force_kernel, "");
  EXPECT_EQ(env.python, "python3");
}

TEST(Environment, OwnCacheGoesBeforeTheDesktopsAndHome) {
  {
    const ScopedVariables variables(
        {{"SPEAR_CACHE", "/a"}, {"XDG_CACHE_HOME", "/b"}, {"HOME", "/c"}});
    EXPECT_EQ(read_environment().cache_dir, "/a");
  }
  {
    const ScopedVariables variables(
        {{"SPEAR_CACHE", ""}, {"XDG_CACHE_HOME", "/b"}, {"HOME", "/c"}});
    EXPECT_EQ(read_environment().cache_dir, "/b/spear") << "an empty variable counts as unset";
  }
  const ScopedVariables variables({{"SPEAR_CACHE", {}}, {"XDG_CACHE_HOME", {}}, {"HOME", {}}});
  EXPECT_EQ(read_environment().cache_dir, "./.cache/spear");
}

TEST(Environment, ReadsTheOthersAsTheyAre) {
  const ScopedVariables variables({{"HF_TOKEN", "secret"},
                                   {"HF_ENDPOINT", "http://localhost:8"},
                                   {"SPEAR_FORCE_KERNEL", "cpu.avx2"},
                                   {"SPEAR_PYTHON", "/opt/python"},
                                   {"SPEAR_API_KEY", "sesame"}});
  const Environment env = read_environment();
  EXPECT_EQ(env.hub_token, "secret");
  EXPECT_EQ(env.hub_endpoint, "http://localhost:8");
  EXPECT_EQ(env.force_kernel, "cpu.avx2");
  EXPECT_EQ(env.python, "/opt/python");
  EXPECT_EQ(env.api_key, "sesame");
}

}  // namespace
}  // namespace spear
