#include "spear/compensate/allocate.h"

#include <algorithm>
#include <limits>
#include <queue>

#include <fmt/format.h>

#include "spear/base/check.h"

namespace spear {
namespace {

int64_t module_count(const ModelConfig& config) {
  return config.num_hidden_layers * kModulesPerLayer;
}

ModuleId module_at(int64_t index) {
  return {static_cast<int32_t>(index / kModulesPerLayer),
          static_cast<Module>(index % kModulesPerLayer)};
}

int64_t largest_rank(const ModelConfig& config, const ModuleId& id) {
  return std::min(out_features(config, id.module), in_features(config, id.module));
}

tl::unexpected<Error> too_small(size_t budget, size_t needed, const std::string& what) {
  return fail(
      ErrorCode::kBudget,
      fmt::format(
          "budget: {} bytes are left for compensators, but {} takes {}; raise it by at least {} "
          "bytes, or leave compensators out",
          budget, what, needed, needed - budget));
}

size_t bytes_of_all(const ModelConfig& config, std::span<const ModuleId> chosen, int64_t rank,
                    const CompensatorFormat& format) {
  size_t total = 0;
  for (const ModuleId& id : chosen) total += format.bytes(config, id, rank);
  return total;
}

Allocation spread(const ModelConfig& config, std::span<const ModuleId> chosen, int64_t rank,
                  const CompensatorFormat& format) {
  Allocation allocation;
  allocation.ranks.resize(static_cast<size_t>(module_count(config)));
  for (const ModuleId& id : chosen)
    allocation.ranks[static_cast<size_t>(id.index())] = static_cast<int32_t>(rank);
  allocation.bytes = bytes_of_all(config, chosen, rank, format);
  return allocation;
}

// The next rank of one module, ordered by worth per byte; ties go to the lower index.
struct Offer {
  double worth;
  int64_t index;
  bool operator<(const Offer& other) const {
    return worth != other.worth ? worth < other.worth : index > other.index;
  }
};

}  // namespace

size_t CompensatorFormat::bytes(int64_t n, int64_t k, int64_t rank) const {
  expects(rank >= 0 && n > 0 && k > 0);
  const auto row = [&](int64_t count) {
    return (static_cast<size_t>(count) * static_cast<size_t>(factor_bits) + 7) / 8;
  };
  const auto r = static_cast<size_t>(rank);
  const size_t scales = factor_bits == 16 ? 0 : 4;  // one F16 for a row of A, one for a row of B
  const size_t hidden = static_cast<size_t>(gate_per_rank) * r;
  return r * (row(n) + row(k) + scales) + (hidden == 0 ? 0 : 2 * (2 * hidden * r + hidden + r));
}

size_t CompensatorFormat::bytes(const ModelConfig& config, const ModuleId& id, int64_t rank) const {
  return bytes(out_features(config, id.module), in_features(config, id.module), rank);
}

std::vector<ModuleId> all_modules(const ModelConfig& config) {
  std::vector<ModuleId> modules;
  for (int64_t i = 0; i < module_count(config); ++i) modules.push_back(module_at(i));
  return modules;
}

Result<Allocation> allocate_by_gain(const ModelConfig& config, std::span<const ModuleGains> modules,
                                    size_t budget, const CompensatorFormat& format) {
  expects(static_cast<int64_t>(modules.size()) == module_count(config));
  Allocation allocation;
  allocation.ranks.resize(modules.size());
  const auto step_bytes = [&](int64_t index) {
    const int64_t rank = allocation.ranks[static_cast<size_t>(index)];
    return format.bytes(config, module_at(index), rank + 1) -
           format.bytes(config, module_at(index), rank);
  };
  std::priority_queue<Offer> offers;
  const auto offer = [&](int64_t index) {
    const ModuleGains& module = modules[static_cast<size_t>(index)];
    const auto rank = static_cast<size_t>(allocation.ranks[static_cast<size_t>(index)]);
    if (rank >= module.gains.size() ||
        static_cast<int64_t>(rank) >= largest_rank(config, module_at(index)))
      return;
    const double worth = module.error > 0 ? module.damage * module.gains[rank] / module.error : 0.0;
    if (worth > 0) offers.push({worth / static_cast<double>(step_bytes(index)), index});
  };
  size_t smallest = std::numeric_limits<size_t>::max();
  for (int64_t i = 0; i < module_count(config); ++i) {
    smallest = std::min(smallest, step_bytes(i));
    offer(i);
  }
  while (!offers.empty()) {
    const int64_t index = offers.top().index;
    offers.pop();
    const size_t cost = step_bytes(index);
    if (allocation.bytes + cost > budget) continue;  // another module's rank may still fit
    allocation.bytes += cost;
    ++allocation.ranks[static_cast<size_t>(index)];
    offer(index);
  }
  if (allocation.bytes == 0)
    return too_small(budget, smallest, "the smallest (rank 1 on one module)");
  return allocation;
}

Result<Allocation> allocate_evenly(const ModelConfig& config, std::span<const ModuleId> chosen,
                                   size_t budget, const CompensatorFormat& format) {
  expects(!chosen.empty());
  int64_t most = std::numeric_limits<int64_t>::max();
  for (const ModuleId& id : chosen) most = std::min(most, largest_rank(config, id));
  int64_t rank = 0;
  while (rank < most && bytes_of_all(config, chosen, rank + 1, format) <= budget) ++rank;
  if (rank == 0)
    return too_small(budget, bytes_of_all(config, chosen, 1, format),
                     fmt::format("rank 1 on {} modules", chosen.size()));
  return spread(config, chosen, rank, format);
}

Result<Allocation> allocate_rank(const ModelConfig& config, std::span<const ModuleId> chosen,
                                 int32_t rank, const CompensatorFormat& format) {
  if (rank < 1)
    return fail(ErrorCode::kUsage, fmt::format("rank: {} asked for; it must be at least 1", rank));
  for (const ModuleId& id : chosen)
    if (rank > largest_rank(config, id))
      return fail(ErrorCode::kUsage,
                  fmt::format("rank: {} asked for, but {} is {} x {}: its rank can be at most {}",
                              rank, name_of(id), out_features(config, id.module),
                              in_features(config, id.module), largest_rank(config, id)));
  return spread(config, chosen, rank, format);
}

}  // namespace spear
