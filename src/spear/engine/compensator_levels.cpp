#include "spear/engine/compensator_levels.h"

#include <algorithm>

#include "spear/scheduler/cost_table.h"

namespace spear {
namespace {

// Σ_n Σ_k of (B A)²: the products of both Gram matrices, entry by entry.
double energy_of(const CompensatorValues& ec) {
  const auto gram = [&](const std::vector<float>& rows, int64_t width, int32_t r, int32_t s) {
    double sum = 0;
    for (int64_t j = 0; j < width; ++j)
      sum += static_cast<double>(rows[static_cast<size_t>(r * width + j)]) *
             static_cast<double>(rows[static_cast<size_t>(s * width + j)]);
    return sum;
  };
  double energy = 0;
  for (int32_t r = 0; r < ec.rank; ++r)
    for (int32_t s = 0; s <= r; ++s)
      energy += (r == s ? 1 : 2) * gram(ec.a, ec.k, r, s) * gram(ec.b, ec.n, r, s);
  return energy;
}

double energy_of(const QuantizedView& weight) {
  const int64_t count = int64_t{weight.n} * weight.k;
  double energy = 0;
  if (weight.bits > 8) {
    const auto* bits = reinterpret_cast<const uint16_t*>(weight.codes);
    for (int64_t i = 0; i < count; ++i) {
      const double w = float_from_bf16(bits[i]);
      energy += w * w;
    }
    return energy;
  }
  const UnpackedMatrix m = unpack(weight);
  const int64_t scaled = count / std::ssize(m.scales);  // weights that share a scale, in order
  for (int64_t i = 0; i < count; ++i) {
    const auto group = static_cast<size_t>(i / scaled);
    const double w = (m.codes[static_cast<size_t>(i)] - static_cast<double>(m.zeros[group])) *
                     static_cast<double>(m.scales[group]);
    energy += w * w;
  }
  return energy;
}

struct Site {
  size_t index = 0;
  double worth = 0, work = 0;
};

std::vector<Site> sites_of(const QuantizedModel& model) {
  std::vector<Site> sites;
  for (size_t l = 0; l < model.layers.size(); ++l)
    for (int s = 0; s < kSitesPerLayer; ++s) {
      Site site{l * kSitesPerLayer + static_cast<size_t>(s)};
      for (const Module module : kModules) {
        const QuantizedLinear& linear = model.layers[l].linear(module);
        if (static_cast<int>(input_site(module)) != s || !linear.compensator) continue;
        const ErrorCompensator& ec = *linear.compensator;
        site.worth += energy_of(unpack(ec.view(), ec.n, ec.k)) /
                      std::max(energy_of(linear.weight.view()), 1e-30);
        site.work += static_cast<double>(
            CompensatorWork{ec.rank, ec.k, ec.n, ec.gate_hidden}.multiply_adds());
      }
      if (site.work > 0) sites.push_back(site);
    }
  return sites;
}

}  // namespace

CompensatorLevels plan_levels(const QuantizedModel& model, int32_t steps) {
  const std::vector<uint8_t> all(model.layers.size() * kSitesPerLayer, 1);
  CompensatorLevels levels{{all}, {1.0}};
  std::vector<Site> sites = sites_of(model);
  if (sites.empty()) return levels;
  std::ranges::stable_sort(sites, [](const Site& a, const Site& b) {
    return a.worth * b.work < b.worth * a.work;  // least worth for its price first
  });
  double total = 0;
  for (const Site& s : sites) total += s.work;
  std::vector<uint8_t> active = all;
  double left = total;
  size_t next = 0;
  for (int32_t level = 1; level <= steps; ++level) {
    const double wanted = total * (1 - static_cast<double>(level) / steps);
    for (; next < sites.size() && (level == steps || left - sites[next].work >= wanted); ++next) {
      active[sites[next].index] = 0;
      left -= sites[next].work;
    }
    levels.active.push_back(active);
    levels.shares.push_back(next == sites.size() ? 0.0 : left / total);
  }
  return levels;
}

}  // namespace spear
