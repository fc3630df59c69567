#include "support/shared_data.h"

#include <cstdlib>
#include <system_error>

namespace spear::test {

std::optional<std::filesystem::path> shared_data(std::string_view name) {
  const char* own = std::getenv("SPEAR_DATA");
  const std::filesystem::path folder =
      own != nullptr && *own != '\0'
          ? std::filesystem::path(own)
          : std::filesystem::path(SPEAR_SOURCE_DIR).parent_path() / "shared" / "data";
  std::filesystem::path path = folder / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return path;
}

}  // namespace spear::test
