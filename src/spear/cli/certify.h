// The quality certificate that `spear compress` puts into an artifact: an evaluation of the
// finished model against its own original.
#pragma once

#include <string>

#include "spear/cli/command.h"
#include "spear/compensate/compress_job.h"

namespace spear {

// `kind`: "none"; "quick" and "full", which need the data folder; "auto": quick where that folder
// is found, else none with a warning. Throws Failure at once when the data is wanted and not there.
Certify make_certify(const std::string& kind, const CompressRequest& request, Backend& backend,
                     const CommandContext& context);

}  // namespace spear
