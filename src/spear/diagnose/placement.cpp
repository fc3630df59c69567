#include "spear/diagnose/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/json.h"

namespace spear {
namespace {

// Indices by descending value; equal values by ascending index.
std::vector<int64_t> descending(std::span<const double> values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  return order;
}

std::vector<double> min_max_normalized(std::span<const double> values) {
  std::vector<double> out(values.begin(), values.end());
  if (out.empty()) return out;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  for (double& value : out) value = *high > *low ? (value - *low) / (*high - *low) : 0.0;
  return out;
}

std::vector<double> mean_ranks(std::span<const double> values) {
  const std::vector<int64_t> order = descending(values);
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    const double value = values[static_cast<size_t>(order[begin])];
    while (end < order.size() && values[static_cast<size_t>(order[end])] == value) ++end;
    for (size_t i = begin; i < end; ++i)
      ranks[static_cast<size_t>(order[i])] = static_cast<double>(begin + end - 1) / 2;
    begin = end;
  }
  return ranks;
}

}  // namespace

double normalized_entropy(std::span<const double> damage) {
  const double total = std::accumulate(damage.begin(), damage.end(), 0.0);
  if (damage.size() < 2 || total <= 0) return 1.0;
  double entropy = 0;
  for (const double d : damage)
    if (d > 0) entropy -= d / total * std::log(d / total);
  return entropy / std::log(static_cast<double>(damage.size()));
}

Cover choose_cover(std::span<const double> damage, const CoverRule& rule) {
  Cover cover;
  cover.entropy = normalized_entropy(damage);
  const double excess =
      std::clamp((cover.entropy - rule.entropy_knee) / (1.0 - rule.entropy_knee), 0.0, 1.0);
  cover.tau_effective = rule.tau * (1.0 - 0.5 * excess);
  // A hair below the exact share, so that a sum that reaches it but for rounding counts as reaching
  // it.
  const double target =
      cover.tau_effective * (1 - 1e-12) * std::accumulate(damage.begin(), damage.end(), 0.0);
  double covered = 0;
  int64_t prefix = 0;
  for (const int64_t i : descending(damage)) {
    if (covered >= target) break;
    covered += damage[static_cast<size_t>(i)];
    ++prefix;
  }
  const auto modules = static_cast<double>(damage.size());
  const auto least = static_cast<int64_t>(std::floor(rule.least * modules));
  const auto most = static_cast<int64_t>(std::floor(rule.most * modules));
  cover.count = std::max(least, std::min(prefix, most));
  return cover;
}

double CostTable::microseconds(const ModelConfig& config, Module module, int64_t rank) const {
  const auto bytes =
      static_cast<double>(rank * (out_features(config, module) + in_features(config, module) + 4));
  return call_overhead_us[static_cast<size_t>(module)] + bytes / (read_gb_per_s * 1e3);
}

Result<CostTable> cost_table_from_json_text(std::string_view text, std::string_view source) {
  Result<Json> json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  CostTable table;
  const auto bad = [&](const std::string& what) {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {}; expected {{\"device\": text, \"read_gb_s\": number, "
                            "\"call_overhead_us\": {{\"q\": number, ... \"down\": number}}}}",
                            source, what));
  };
  if (!json->is_object() || !json->contains("read_gb_s") || !(*json)["read_gb_s"].is_number())
    return bad("no number 'read_gb_s'");
  table.read_gb_per_s = (*json)["read_gb_s"].get<double>();
  if (!(table.read_gb_per_s > 0) || !std::isfinite(table.read_gb_per_s))
    return bad(fmt::format("'read_gb_s' is {}", table.read_gb_per_s));
  if (json->contains("device") && (*json)["device"].is_string())
    table.device = (*json)["device"].get<std::string>();
  if (!json->contains("call_overhead_us") || !(*json)["call_overhead_us"].is_object())
    return bad("no object 'call_overhead_us'");
  const Json& overheads = (*json)["call_overhead_us"];
  for (const Module module : kModules) {
    const std::string name(short_name(module));
    if (!overheads.contains(name) || !overheads[name].is_number())
      return bad("no overhead for '" + name + "'");
    const double value = overheads[name].get<double>();
    if (!std::isfinite(value) || value < 0)
      return bad(fmt::format("overhead of '{}' is {}", name, value));
    table.call_overhead_us[static_cast<size_t>(module)] = value;
  }
  return table;
}

std::string to_json_text(const CostTable& table) {
  Json json = {{"device", table.device},
               {"read_gb_s", table.read_gb_per_s},
               {"call_overhead_us", Json::object()}};
  for (const Module module : kModules)
    json["call_overhead_us"][std::string(short_name(module))] =
        table.call_overhead_us[static_cast<size_t>(module)];
  return json.dump(2) + "\n";
}

std::vector<int64_t> place(std::span<const double> damage, std::span<const double> cost,
                           int64_t count, const PlacementOptions& options) {
  expects(damage.size() == cost.size() && count >= 0 &&
          count <= static_cast<int64_t>(damage.size()));
  const std::vector<int64_t> by_damage = descending(damage);
  const auto kept = std::min(
      count, static_cast<int64_t>(std::ceil(options.protected_share * static_cast<double>(count))));
  std::vector<int64_t> chosen(by_damage.begin(), by_damage.begin() + kept);
  const std::set<int64_t> taken(chosen.begin(), chosen.end());
  std::vector<double> score = min_max_normalized(damage);
  const std::vector<double> time = min_max_normalized(cost);
  for (size_t i = 0; i < score.size(); ++i) score[i] -= options.latency_weight * time[i];
  for (const int64_t i : descending(score)) {
    if (static_cast<int64_t>(chosen.size()) == count) break;
    if (!taken.contains(i)) chosen.push_back(i);
  }
  return chosen;
}

double spearman(std::span<const double> a, std::span<const double> b) {
  expects(a.size() == b.size());
  if (a.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> ra = mean_ranks(a);
  const std::vector<double> rb = mean_ranks(b);
  const double mean = static_cast<double>(a.size() - 1) / 2;
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < ra.size(); ++i) {
    ab += (ra[i] - mean) * (rb[i] - mean);
    aa += (ra[i] - mean) * (ra[i] - mean);
    bb += (rb[i] - mean) * (rb[i] - mean);
  }
  return ab / std::sqrt(aa * bb);
}

Overlap compare_damages(std::span<const double> a, std::span<const double> b, double share) {
  Overlap overlap;
  overlap.spearman = spearman(a, b);
  const auto top =
      std::max<int64_t>(1, static_cast<int64_t>(std::floor(share * static_cast<double>(a.size()))));
  const std::vector<int64_t> order_a = descending(a);
  const std::vector<int64_t> order_b = descending(b);
  const std::set<int64_t> set_a(order_a.begin(), order_a.begin() + top);
  int64_t common = 0;
  for (int64_t i = 0; i < top; ++i)
    common += set_a.contains(order_b[static_cast<size_t>(i)]) ? 1 : 0;
  overlap.jaccard = static_cast<double>(common) / static_cast<double>(2 * top - common);
  overlap.mismatch = (1 - overlap.jaccard) / (1 + overlap.jaccard);
  return overlap;
}

}  // namespace spear
