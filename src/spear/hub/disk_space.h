// Says before a download that the disk is too small for it, rather than after an hour.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace spear {

// Throws Failure(kIo) when the file system of `folder` has fewer than `bytes` free.
void expect_disk_space(const std::filesystem::path& folder, int64_t bytes, std::string_view what);

}  // namespace spear
