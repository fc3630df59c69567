// Where the real texts and tasks lie: $SPEAR_DATA, else <source>/../shared/data. They are not part
// of the repository; a test that wants them says so when they are absent:
//   const auto data = shared_data("wikitext2/wiki.test.raw");
//   if (!data) GTEST_SKIP() << kNoSharedData;
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace spear::test {

inline constexpr const char* kNoSharedData =
    "the evaluation texts are absent (set SPEAR_DATA to their folder)";

// The path of a file or folder below the data folder, if it exists.
std::optional<std::filesystem::path> shared_data(std::string_view name);

}  // namespace spear::test
