// The seven linear modules of a decoder layer, their names, shapes and input sites. Every table of
// this program that speaks of modules uses these.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "spear/model/config.h"

namespace spear {

enum class Module : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kModulesPerLayer = 7;
inline constexpr std::array<Module, kModulesPerLayer> kModules = {
    Module::kQ, Module::kK, Module::kV, Module::kO, Module::kGate, Module::kUp, Module::kDown};

// Modules that read the same input share one site: its covariance is gathered once.
enum class InputSite : uint8_t { kAttention, kOutput, kMlp, kDown };
inline constexpr int kSitesPerLayer = 4;

struct ModuleId {
  int32_t layer = 0;
  Module module = Module::kQ;
  [[nodiscard]] int64_t index() const {  // 0 .. 7 * layers - 1
    return int64_t{layer} * kModulesPerLayer + static_cast<int64_t>(module);
  }
  friend bool operator==(const ModuleId&, const ModuleId&) = default;
};

constexpr InputSite input_site(Module module) {
  switch (module) {
    case Module::kQ:
    case Module::kK:
    case Module::kV:
      return InputSite::kAttention;
    case Module::kO:
      return InputSite::kOutput;
    case Module::kGate:
    case Module::kUp:
      return InputSite::kMlp;
    case Module::kDown:
      return InputSite::kDown;
  }
  return InputSite::kDown;
}

constexpr std::string_view short_name(Module module) {  // "q", "down": tables and pictures
  constexpr std::string_view kNames[] = {"q", "k", "v", "o", "gate", "up", "down"};
  return kNames[static_cast<int>(module)];
}

constexpr std::string_view long_name(Module module) {  // "self_attn.q_proj": files and errors
  constexpr std::string_view kNames[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                         "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                         "mlp.down_proj"};
  return kNames[static_cast<int>(module)];
}

inline std::string name_of(const ModuleId& id) {  // "layers.3.mlp.down_proj"
  return "layers." + std::to_string(id.layer) + "." + std::string(long_name(id.module));
}

inline int64_t out_features(const ModelConfig& config, Module module) {  // n
  switch (module) {
    case Module::kQ:
      return config.q_size();
    case Module::kK:
    case Module::kV:
      return config.kv_size();
    case Module::kGate:
    case Module::kUp:
      return config.intermediate_size;
    case Module::kO:
    case Module::kDown:
      return config.hidden_size;
  }
  return 0;
}

inline int64_t site_width(const ModelConfig& config, InputSite site) {  // k
  switch (site) {
    case InputSite::kAttention:
    case InputSite::kMlp:
      return config.hidden_size;
    case InputSite::kOutput:
      return config.q_size();
    case InputSite::kDown:
      return config.intermediate_size;
  }
  return 0;
}

inline int64_t in_features(const ModelConfig& config, Module module) {  // k
  return site_width(config, input_site(module));
}

}  // namespace spear
