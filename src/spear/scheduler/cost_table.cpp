#include "spear/scheduler/cost_table.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/json.h"

namespace spear {
namespace {

constexpr size_t kMostKnots = 64, kMostLevels = 64;
constexpr double kMostSeconds = 1e4;

Error wrong(std::string_view source, std::string_view field, std::string_view expected) {
  return {ErrorCode::kBadFile, fmt::format("{}: {}: {} expected", source, field, expected)};
}

bool is_cost(const Json& value, double most) {
  return value.is_number() && value.get<double>() >= 0 && value.get<double>() <= most;
}

Result<std::vector<double>> read_list(const Json& json, const char* field, size_t count,
                                      double most, std::string_view source) {
  const auto found = json.find(field);
  const bool fits = found != json.end() && found->is_array() && found->size() == count &&
                    std::ranges::all_of(*found, [&](const Json& v) { return is_cost(v, most); });
  if (!fits)
    return tl::make_unexpected(
        wrong(source, field, fmt::format("{} numbers from 0 to {}", count, most)));
  return found->get<std::vector<double>>();
}

Result<std::vector<int64_t>> read_rows(const Json& json, std::string_view source) {
  const auto found = json.find("rows");
  const auto good = [](const Json& v) {
    return v.is_number_integer() && v.get<int64_t>() >= 1 && v.get<int64_t>() <= (1 << 20);
  };
  if (found == json.end() || !found->is_array() || found->size() < 2 ||
      found->size() > kMostKnots || !std::ranges::all_of(*found, good))
    return tl::make_unexpected(wrong(source, "rows", "2 to 64 whole numbers from 1 to 1048576"));
  auto rows = found->get<std::vector<int64_t>>();
  if (std::ranges::adjacent_find(rows, std::greater_equal<>()) != rows.end())
    return tl::make_unexpected(wrong(source, "rows", "ascending numbers"));
  return rows;
}

Result<double> read_cost(const Json& json, const char* field, std::string_view source) {
  const auto found = json.find(field);
  if (found == json.end()) return 0.0;
  if (!is_cost(*found, kMostSeconds))
    return tl::make_unexpected(wrong(source, field, "seconds, 0 or more"));
  return found->get<double>();
}

std::string text_of(const Json& json, const char* field) {
  const auto found = json.find(field);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Result<std::vector<double>> read_shares(const Json& json, std::string_view source) {
  const auto found = json.find("level_shares");
  if (found == json.end()) return std::vector<double>{1.0};
  if (!found->is_array() || found->empty() || found->size() > kMostLevels)
    return tl::make_unexpected(wrong(source, "level_shares", "1 to 64 numbers"));
  auto shares = read_list(json, "level_shares", found->size(), 1, source);
  if (shares && (shares->front() != 1 || !std::ranges::is_sorted(*shares, std::greater<>())))
    return tl::make_unexpected(wrong(source, "level_shares", "1 and then less and less"));
  return shares;
}

}  // namespace

double StepCostTable::share(int32_t level) const {
  return level_shares[static_cast<size_t>(std::clamp(level, 0, levels() - 1))];
}

KnotPlace StepCostTable::place(int64_t count) const {
  size_t knot = 0;
  while (knot + 2 < rows.size() && count >= rows[knot + 1]) ++knot;
  const auto low = static_cast<double>(rows[knot]), high = static_cast<double>(rows[knot + 1]);
  const double second = (static_cast<double>(count) - low) / (high - low);
  return {knot, 1 - second, second};
}

double StepCostTable::seconds(const StepShape& s) const {
  const KnotPlace at = place(s.decode_rows + s.prefill_tokens);
  const auto along = [&](const std::vector<double>& curve) {
    return curve.empty() ? 0.0 : at.first * curve[at.knot] + at.second * curve[at.knot + 1];
  };
  const double sum = along(base) + share(s.level) * along(compensators) +
                     decode_row * static_cast<double>(s.decode_rows) +
                     context_token * static_cast<double>(s.context_tokens) +
                     prefill_pair * static_cast<double>(s.prefill_pairs);
  return std::max(sum, 0.0);
}

Result<StepCostTable> parse_step_costs(std::string_view text, std::string_view source) {
  const auto json = parse_json(text, source);
  if (!json) return tl::make_unexpected(json.error());
  if (!json->is_object()) return tl::make_unexpected(wrong(source, "the table", "an object"));
  StepCostTable table;
  auto rows = read_rows(*json, source);
  if (!rows) return tl::make_unexpected(rows.error());
  table.rows = std::move(*rows);
  auto base = read_list(*json, "base", table.rows.size(), kMostSeconds, source);
  if (!base) return tl::make_unexpected(base.error());
  table.base = std::move(*base);
  table.compensators.assign(table.rows.size(), 0.0);
  if (json->contains("compensators")) {
    auto list = read_list(*json, "compensators", table.rows.size(), kMostSeconds, source);
    if (!list) return tl::make_unexpected(list.error());
    table.compensators = std::move(*list);
  }
  for (const auto& [field, into] : {std::pair{"decode_row", &table.decode_row},
                                    std::pair{"context_token", &table.context_token},
                                    std::pair{"prefill_pair", &table.prefill_pair}}) {
    const auto cost = read_cost(*json, field, source);
    if (!cost) return tl::make_unexpected(cost.error());
    *into = *cost;
  }
  auto shares = read_shares(*json, source);
  if (!shares) return tl::make_unexpected(shares.error());
  table.level_shares = std::move(*shares);
  table.device = text_of(*json, "device");
  table.model = text_of(*json, "model");
  return table;
}

std::string to_json_text(const StepCostTable& t) {
  const Json json = {{"device", t.device},
                     {"model", t.model},
                     {"rows", t.rows},
                     {"base", t.base},
                     {"compensators", t.compensators},
                     {"decode_row", t.decode_row},
                     {"context_token", t.context_token},
                     {"prefill_pair", t.prefill_pair},
                     {"level_shares", t.level_shares}};
  return json.dump(2) + "\n";
}

}  // namespace spear
