// From a byte budget to the rank of every module's compensator. Bytes are counted exactly as a
// packed ErrorCompensator stores them. Pure arithmetic, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "spear/base/error.h"
#include "spear/model/config.h"
#include "spear/model/modules.h"

namespace spear {

// How compensators are stored.
struct CompensatorFormat {
  int32_t factor_bits = 8;    // 4, 8, 16
  int32_t gate_per_rank = 0;  // hidden units of the gate per rank (the paper: 4); 0: no gate

  [[nodiscard]] size_t bytes(int64_t n, int64_t k, int64_t rank) const;
  [[nodiscard]] size_t bytes(const ModelConfig& config, const ModuleId& id, int64_t rank) const;
};

struct Allocation {
  std::vector<int32_t> ranks;  // by ModuleId::index(); 0: no compensator
  size_t bytes = 0;
};

// What compensating one module is worth: the damage it does times the share each rank takes from
// its error.
struct ModuleGains {
  double damage = 0;
  double error = 0;           // of the module, before
  std::vector<double> gains;  // of each rank, descending: the spectrum of a ClosedForm
};

// Water-filling: rank by rank to the module where a byte helps most, until nothing more fits.
// kBudget with the smallest useful budget when not one rank fits.
Result<Allocation> allocate_by_gain(const ModelConfig& config, std::span<const ModuleGains> modules,
                                    size_t budget, const CompensatorFormat& format);

// The largest rank that all chosen modules can have alike within the budget, as the paper spends
// it.
Result<Allocation> allocate_evenly(const ModelConfig& config, std::span<const ModuleId> chosen,
                                   size_t budget, const CompensatorFormat& format);

// A given rank on all chosen modules. kUsage when it is larger than one of them.
Result<Allocation> allocate_rank(const ModelConfig& config, std::span<const ModuleId> chosen,
                                 int32_t rank, const CompensatorFormat& format);

std::vector<ModuleId> all_modules(const ModelConfig& config);

}  // namespace spear
