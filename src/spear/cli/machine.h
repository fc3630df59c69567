// Where a command computes: the threads and the backend that its options name.
#pragma once

#include <memory>
#include <string>

#include "spear/backend/backend.h"
#include "spear/base/thread_pool.h"
#include "spear/cli/command.h"

namespace spear {

struct MachineSettings {
  std::string device = "auto";   // "auto", "cpu", "cuda", "cuda:1"
  std::string compute = "bf16";  // "bf16", "f32"
  std::string path = "ref";      // the plain path: every faster one is judged by it

  [[nodiscard]] Compute arithmetic() const {
    return compute == "f32" ? Compute::kF32 : Compute::kBF16;
  }
  [[nodiscard]] DType dtype() const { return compute == "f32" ? DType::kF32 : DType::kBF16; }
};

// Adds --device, --compute and --path.
void add_machine_options(CLI::App& app, MachineSettings& settings);

struct Machine {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Backend> backend;
};

// Throws Failure(kUnsupported) where this build or computer lacks what was named.
Machine make_machine(const MachineSettings& settings, const CommandContext& context);

}  // namespace spear
