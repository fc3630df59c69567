// Replays requests on an engine in real time and notes when tokens came: the measured twin of
// simulate(). The calling thread submits; the engine's thread notes.
#pragma once

#include <span>

#include "spear/engine/engine.h"
#include "spear/scheduler/simulator.h"

namespace spear {

// Prompts are random tokens of their own, answers are as long as they are asked to be. Returns when
// the last has ended.
Simulation replay(Engine& engine, std::span<const SimulatedRequest> requests, uint64_t seed);

}  // namespace spear
