#include "spear/cli/exit_codes.h"

#include <array>

namespace spear {
namespace {

constexpr int number(ErrorCode code) {
  return static_cast<int>(code);
}

constexpr std::array<ExitCode, 11> kExitCodes = {{
    {0, "ok", "The command did what it was asked."},
    {number(ErrorCode::kUsage), "usage",
     "An option, a value or a permission on the command line's side: correct it."},
    {number(ErrorCode::kNotFound), "not_found", "A file, model, tensor or program is not there."},
    {number(ErrorCode::kBadFile), "bad_file",
     "A file whose bytes are not what its format or its checksum says."},
    {number(ErrorCode::kUnsupported), "unsupported",
     "Understood, but this build or machine cannot do it."},
    {number(ErrorCode::kIo), "io",
     "Reading or writing failed: permissions, a full disk, a lock that is held."},
    {number(ErrorCode::kNetwork), "network", "A download failed; what arrived was kept."},
    {number(ErrorCode::kInterrupted), "interrupted",
     "Stopped by Ctrl-C; what was done was kept and the same command goes on."},
    {number(ErrorCode::kBudget), "budget",
     "No compensator fits the budget, or no file reaches the target."},
    {number(ErrorCode::kInternal), "internal", "A bug of spear: please report it."},
    {130, "killed", "A second Ctrl-C: stopped at once, nothing was saved after the first."},
}};

}  // namespace

std::span<const ExitCode> exit_codes() {
  return kExitCodes;
}

std::string_view exit_code_name(ErrorCode code) {
  for (const ExitCode& entry : kExitCodes)
    if (entry.code == number(code)) return entry.name;
  return "internal";
}

}  // namespace spear
