// Where a command computes: the threads and the backend that its options name.
#pragma once

#include <memory>
#include <string>

#include "spear/backend/backend.h"
#include "spear/base/thread_pool.h"
#include "spear/cli/command.h"
#include "spear/model/decoder.h"

namespace spear {

struct MachineSettings {
  std::string device = "auto";   // "auto", "cpu", "cuda", "cuda:1"
  std::string compute = "bf16";  // "bf16", "f32"
  // "ref": the plain path, by which the others are judged; "engine", "exact": the fused step;
  // "auto": engine or exact, as the model allows (cli/model_path.h)
  std::string path = "ref";

  [[nodiscard]] Compute arithmetic() const {
    return compute == "f32" ? Compute::kF32 : Compute::kBF16;
  }
  [[nodiscard]] DType dtype() const { return compute == "f32" ? DType::kF32 : DType::kBF16; }
};

// Adds --device, --compute and --path; commands that look into a model's layers know the plain path
// alone.
enum class Paths { kPlainOnly, kAll };
void add_machine_options(CLI::App& app, MachineSettings& settings, Paths paths = Paths::kPlainOnly);

struct Machine {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Backend> backend;
};

// Adds --kv: the type of the cache's keys and values.
void add_kv_option(CLI::App& app, std::string& kv);
// The element type that --kv names: "f32", "f16", "int8"; "auto" is F16 where the backend keeps
// that, else F32.
DType kv_type_named(const std::string& name, const Backend& backend);

// Throws Failure(kUnsupported) where this build or computer lacks what was named.
Machine make_machine(const MachineSettings& settings, const CommandContext& context);

}  // namespace spear
