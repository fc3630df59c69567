#include "support/temporary_directory.h"

#include <fstream>
#include <string>
#include <system_error>

#include <unistd.h>

#include "spear/base/check.h"

namespace spear::test {

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "spear-test-XXXXXX").string();
  expects(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // a destructor does not throw
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path TemporaryDirectory::file(std::string_view name,
                                               std::string_view contents) const {
  const std::filesystem::path target = path_ / name;
  std::filesystem::create_directories(target.parent_path());
  std::ofstream stream(target, std::ios::binary);
  stream.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  expects(stream.good());
  return target;
}

}  // namespace spear::test
