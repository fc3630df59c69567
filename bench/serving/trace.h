// Requests of a recorded trace (TIMESTAMP,ContextTokens,GeneratedTokens a line): when they came and
// how long they were. Plain values.
#pragma once

#include <string>
#include <vector>

#include "spear/scheduler/simulator.h"

namespace spear {

struct TraceLimits {
  int64_t context = 2048;  // prompt and answer together: both are capped
  int64_t requests = 0;    // 0: as many as the file has; more: it begins again
};

// In order of arrival, the first at 0. Throws Failure naming the file and line.
std::vector<SimulatedRequest> read_trace(const std::string& path, const TraceLimits& limits);

// The same requests `rate` a second on average, with these objectives.
std::vector<SimulatedRequest> at_rate(const std::vector<SimulatedRequest>& trace, double rate,
                                      double ttft_objective, double itl_objective);

}  // namespace spear
