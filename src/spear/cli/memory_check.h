// Says before anything is loaded that a model needs more memory than there is. Pure but for
// require_memory's callers' question to the system; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "spear/base/dtype.h"
#include "spear/base/env.h"
#include "spear/base/error.h"
#include "spear/model/config.h"

namespace spear {

// kUnsupported with the numbers when `needed` bytes are more than `available`.
Result<void> require_memory(const std::string& what, int64_t needed, int64_t available);

// Bytes of a full-precision model's weights in memory as `dtype`.
int64_t dense_bytes(const ModelConfig& config, DType dtype);

// Opens the model called `name` (as open_model takes it) just far enough to know its size, and
// throws Failure when it does not fit into what is free. A name that leads nowhere is left to
// open_model.
void check_memory_for(const std::string& name, const Environment& env, DType dtype);

}  // namespace spear
