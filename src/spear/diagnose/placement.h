// From damages to a choice of modules: entropy, the adaptive cover rule, and placement by damage
// against cost (SPEAR 3.2, appendix B and C; what the paper leaves open is settled in
// methods.md 3.2, 3.8). Pure arithmetic.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "spear/base/error.h"
#include "spear/model/config.h"
#include "spear/model/modules.h"

namespace spear {

// Entropy of p = damage / Σ damage over log N: 1 when damage is even, 0 when one module has all. 1
// without damage.
double normalized_entropy(std::span<const double> damage);

struct CoverRule {
  double tau = 0.8;           // share of the damage to cover where damage is concentrated
  double entropy_knee = 0.9;  // above it the target falls to tau / 2 at entropy 1
  double least = 0.15;        // clamps on the share of modules
  double most = 0.60;
};

struct Cover {
  double entropy = 0, tau_effective = 0;
  int64_t count = 0;  // K
};

// Damages with the noise floor already taken off.
Cover choose_cover(std::span<const double> damage, const CoverRule& rule = {});

// What a compensator costs at decode: its bytes at the rate memory is read, and a fixed time a
// call.
struct CostTable {
  std::string device = "a 2-core x86 server, assumed";
  double read_gb_per_s = 25.0;
  std::array<double, kModulesPerLayer> call_overhead_us = {0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5};

  // Microseconds a token of a compensator of `rank` with 8-bit factors on the module.
  [[nodiscard]] double microseconds(const ModelConfig& config, Module module, int64_t rank) const;
};
// {"device": "...", "read_gb_s": 27.1, "call_overhead_us": {"q": 0.5, …, "down": 0.5}}: all seven
// are needed.
Result<CostTable> cost_table_from_json_text(std::string_view text, std::string_view source);
std::string to_json_text(const CostTable& table);

struct PlacementOptions {
  double latency_weight = 0.3;  // λ: weight of the normalised cost against the normalised damage
  double protected_share =
      0.5;  // the first ⌈share · K⌉ modules by damage are taken whatever they cost
};

// K modules by ModuleId::index(), in order of choice. Ties go to the lower index.
std::vector<int64_t> place(std::span<const double> damage, std::span<const double> cost,
                           int64_t count, const PlacementOptions& options = {});

// Rank correlation with ties given their mean rank; NaN below two values or without variation.
double spearman(std::span<const double> a, std::span<const double> b);

struct Overlap {
  double spearman = 0;
  double jaccard = 0;   // of the sets of the `share` most damaged modules
  double mismatch = 0;  // (1 − J) / (1 + J): the share of one set that is not in the other
};
Overlap compare_damages(std::span<const double> a, std::span<const double> b, double share = 0.3);

}  // namespace spear
