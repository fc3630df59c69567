#include "spear/cli/machine.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/log.h"

namespace spear {
namespace {

// "cuda" -> 0, "cuda:3" -> 3, else -1.
int gpu_number(const std::string& device) {
  if (device == "cuda") return 0;
  if (!device.starts_with("cuda:") || device.size() > 7) return -1;
  int number = 0;
  for (const char c : device.substr(5)) {
    if (c < '0' || c > '9') return -1;
    number = number * 10 + (c - '0');
  }
  return device.size() > 5 ? number : -1;
}

std::unique_ptr<Backend> choose_backend(const MachineSettings& settings, ThreadPool& pool,
                                        const Environment& env) {
  if (settings.device == "auto" && env.force_kernel.empty()) {
    Result<std::unique_ptr<Backend>> gpu = make_gpu_backend(0);
    if (gpu) return std::move(*gpu);
    log(LogLevel::kDebug, gpu.error().message);
  }
  if (settings.device == "auto" || settings.device == "cpu")
    return value_or_throw(make_cpu_backend(pool, env.force_kernel));
  const int number = gpu_number(settings.device);
  if (number < 0)
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("--device: auto, cpu, cuda or cuda:N expected, found {}", settings.device));
  return value_or_throw(make_gpu_backend(number, env.force_kernel));
}

}  // namespace

void add_machine_options(CLI::App& app, MachineSettings& settings, Paths paths) {
  app.add_option("--device", settings.device, "Where to compute: auto, cpu, cuda, cuda:N")
      ->type_name("DEVICE");
  app.add_option("--compute", settings.compute,
                 "Products: both factors rounded to bf16 and summed in f32, or all in f32")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"bf16", "f32"}));
  CLI::Option* path = app.add_option("--path", settings.path, "")->type_name("NAME");
  if (paths == Paths::kAll)
    path->description(
            "How a compressed model runs: engine (fused, activations in 8 bits), exact (fused, in "
            "16), ref, which judges both, or auto: engine where it raises KL by 5 % or less")
        ->check(CLI::IsMember({"auto", "engine", "exact", "ref"}));
  else
    path->description("How the model runs; ref judges every other one")
        ->check(CLI::IsMember({"ref"}));
}

void add_kv_option(CLI::App& app, std::string& kv) {
  app.add_option("--kv", kv, "Type of keys and values: f16, int8, f32; auto: f16 where it runs")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"auto", "f32", "f16", "int8"}));
}

DType kv_type_named(const std::string& name, const Backend& backend) {
  if (name == "auto") return backend.supports_kv(DType::kF16) ? DType::kF16 : DType::kF32;
  return name == "int8" ? DType::kI8 : name == "f16" ? DType::kF16 : DType::kF32;
}

Machine make_machine(const MachineSettings& settings, const CommandContext& context) {
  Machine machine;
  machine.pool = std::make_unique<ThreadPool>(context.options.threads);
  machine.backend = choose_backend(settings, *machine.pool, context.environment);
  log(LogLevel::kInfo, machine.backend->describe());
  return machine;
}

}  // namespace spear
