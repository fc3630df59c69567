#include "spear/hub/disk_space.h"

#include <fmt/format.h>

#include "spear/base/error.h"

namespace spear {

void expect_disk_space(const std::filesystem::path& folder, int64_t bytes, std::string_view what) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error || bytes <= 0 || space.available >= static_cast<uintmax_t>(bytes)) return;
  throw Failure(
      ErrorCode::kIo,
      fmt::format(
          "{}: {} needs {:.1f} GB here, {:.1f} GB are free; make room, or point SPEAR_CACHE "
          "at another disk",
          folder.string(), what, static_cast<double>(bytes) / 1e9,
          static_cast<double>(space.available) / 1e9));
}

}  // namespace spear
