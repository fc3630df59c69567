#include "spear/cli/bench_layout.h"

#include <charconv>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "spear/base/rng.h"
#include "spear/compensate/allocate.h"
#include "spear/compensate/base_model.h"

namespace spear {
namespace {

constexpr int32_t kGatePerRank = 4;  // hidden units of the gate, as the paper has it
constexpr int32_t kFactorBits = 8;

std::vector<ModuleId> choose_modules(const ModelConfig& config, int32_t percent, uint64_t seed) {
  Rng rng(seed);
  std::vector<ModuleId> chosen;
  for (const Module module : kModules) {
    std::vector<int32_t> layers(static_cast<size_t>(config.num_hidden_layers));
    std::iota(layers.begin(), layers.end(), 0);
    for (size_t i = layers.size(); i > 1; --i)
      std::swap(layers[i - 1], layers[rng.below(static_cast<uint32_t>(i))]);
    const size_t count = (layers.size() * static_cast<size_t>(percent) + 50) / 100;
    for (size_t i = 0; i < count; ++i) chosen.push_back({layers[i], module});
  }
  return chosen;
}

}  // namespace

Result<RandomLayout> parse_layout(const std::string& text) {
  RandomLayout layout;
  const char* const end = text.data() + text.size();
  const auto rank = std::from_chars(text.data(), end, layout.rank);
  if (rank.ec == std::errc() && rank.ptr != end && *rank.ptr == '@') {
    const auto percent = std::from_chars(rank.ptr + 1, end, layout.percent);
    if (percent.ec == std::errc() && percent.ptr == end && layout.rank >= 1 &&
        layout.percent >= 1 && layout.percent <= 100)
      return layout;
  }
  return fail(ErrorCode::kUsage,
              fmt::format("--layout {}: expected RANK@PERCENT, for example 16@40", text));
}

void put_random_compensators(const RandomLayout& layout, uint64_t seed, QuantizedModel& model) {
  RecipePlan plan;
  plan.start = FactorStart::kRandomSmall;
  plan.gate_per_rank = kGatePerRank;
  const Allocation allocation =
      value_or_throw(allocate_rank(model.config, choose_modules(model.config, layout.percent, seed),
                                   layout.rank, {kFactorBits, kGatePerRank}));
  const CompensatorList list = random_compensators(model.config, allocation, plan, seed);
  for (size_t at = 0; at < list.size(); ++at) {
    QuantizedLinear& linear = model.layers[at / kModulesPerLayer].linears[at % kModulesPerLayer];
    linear.compensator.reset();
    if (list[at]) linear.compensator = pack(*list[at], kFactorBits);
  }
}

}  // namespace spear
