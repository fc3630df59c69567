// The before and after of a report: what the reference, plain 4-bit rounding of it, and the
// compressed models say to the same prompts.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "spear/cli/command.h"
#include "spear/cli/machine.h"
#include "spear/report/report_input.h"

namespace spear {

struct SampleRequest {
  std::string reference;  // a path or a pulled name; empty: the pulled model that the first
                          // artifact was made from, by its digest
  std::vector<std::filesystem::path> artifacts;
  std::vector<std::string> prompts;  // empty: three of our own
  uint64_t seed = 1;
  int64_t most_tokens = 96;
};

// Nothing when no reference is named and none is found: a warning says so. Throws Failure.
std::vector<TextSample> make_samples(const SampleRequest& request, const MachineSettings& settings,
                                     CommandContext& context);

}  // namespace spear
