// How much memory this process may still take. Asked when it matters; every thread.
#pragma once

#include <cstdint>

namespace spear {

// The system's free and reclaimable memory, or what is left below the limit of a control group
// where that is less; 4 GiB where neither can be read.
int64_t available_memory();

}  // namespace spear
