#include "spear/cli/bench_results.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace spear {
namespace {

Json to_json(const Spread& s) {
  return {{"median", s.median}, {"min", s.least}, {"max", s.most}};
}

Spread from_json(const Json& json) {
  return {json.at("median").get<double>(), json.at("min").get<double>(),
          json.at("max").get<double>()};
}

Json case_fields(const BenchCase& c) {
  return {{"name", c.name()}, {"tokens", c.tokens}, {"context", c.context}, {"batch", c.batch}};
}

Json speed_row(const BenchRuns& runs, const Json& about) {
  std::vector<double> speeds;
  for (const double s : runs.seconds) speeds.push_back(runs.tokens() / s);
  const Spread speed = spread_of(speeds);
  Json row = about;
  row["what"] = runs.what.prefill ? "prefill" : "decode";
  row.update(case_fields(runs.what));
  row["compensators"] = runs.compensators;
  row["tokens_per_second"] = to_json(speed);
  row["runs"] = speeds;
  if (runs.what.prefill) {
    const double rate = 2 * runs.multiply_adds_per_run * speed.median / runs.tokens();
    row["operations_per_second"] = rate;
    row["ceiling"] = {{"kind", "8-bit multiply-adds"}, {"per_second", runs.ceiling}};
    row["share"] = rate / runs.ceiling;
  } else {
    const double steps = speed.median / static_cast<double>(runs.what.batch);
    const double rate = steps * static_cast<double>(runs.bytes_per_step);
    row["bytes_per_step"] = runs.bytes_per_step;
    row["bytes_per_second"] = rate;
    row["ceiling"] = {{"kind", "reading as many bytes"}, {"per_second", runs.ceiling}};
    row["share"] = rate / runs.ceiling;
  }
  return row;
}

Json cost_row(const BenchRuns& with, const BenchRuns& without, const Json& about) {
  std::vector<double> costs;
  for (size_t i = 0; i < with.seconds.size(); ++i)
    costs.push_back(with.seconds[i] / without.seconds[i] - 1);
  Json row = about;
  row["what"] = with.what.prefill ? "ec_cost_prefill" : "ec_cost_decode";
  row.update(case_fields(with.what));
  row["cost"] = to_json(spread_of(costs));
  return row;
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::string key_of(const Json& row) {
  const bool with = row.value("compensators", true);
  return row.at("name").get<std::string>() + (with ? "" : ", no compensators");
}

const Json* row_named(const std::vector<Json>& rows, const std::string& key) {
  for (const Json& row : rows)
    if (row.contains("tokens_per_second") && key_of(row) == key) return &row;
  return nullptr;
}

// Rows of cells, the first one a heading; columns are as wide as they need to be.
std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  const auto length = [](const std::string& text) {  // of code points
    return static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], length(row[i]));
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string fill(widths[i] - length(row[i]), ' ');
      out += i == 0 ? row[i] + fill : "  " + fill + row[i];
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    out += '\n';
  }
  return out;
}

std::string ceiling_text(const Json& row) {
  const double rate = row.at("ceiling").at("per_second").get<double>();
  return row.at("what") == "prefill" ? fmt::format("{:.0f} G op/s", 1e-9 * rate)
                                     : fmt::format("{:.1f} GB/s", 1e-9 * rate);
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {median, values.front(), values.back()};
}

std::vector<Json> bench_rows(const std::vector<BenchRuns>& all, const Json& about) {
  std::vector<Json> rows;
  for (const BenchRuns& runs : all) rows.push_back(speed_row(runs, about));
  for (size_t i = 0; i + 1 < all.size(); ++i)
    if (all[i].compensators && !all[i + 1].compensators)
      rows.push_back(cost_row(all[i], all[i + 1], about));
  return rows;
}

std::string bench_lines(const std::vector<Json>& rows) {
  std::string out;
  for (const Json& row : rows) out += one_line(row) + '\n';
  return out;
}

std::string bench_table(const std::vector<Json>& rows) {
  std::vector<std::vector<std::string>> speeds = {
      {"", "tokens/s", "least", "most", "of the ceiling", "ceiling"}};
  std::string costs;
  for (const Json& row : rows) {
    if (row.contains("cost")) {
      const Spread cost = from_json(row.at("cost"));
      costs +=
          fmt::format("compensators cost {} ({} to {}) of the time of {}\n", percent(cost.median),
                      percent(cost.least), percent(cost.most), row.at("name").get<std::string>());
      continue;
    }
    if (!row.contains("tokens_per_second")) continue;
    const Spread speed = from_json(row.at("tokens_per_second"));
    speeds.push_back({key_of(row), fmt::format("{:.1f}", speed.median),
                      fmt::format("{:.1f}", speed.least), fmt::format("{:.1f}", speed.most),
                      percent(row.at("share").get<double>()), ceiling_text(row)});
  }
  return table_text(speeds) + (costs.empty() ? "" : "\n" + costs);
}

std::vector<Json> parse_bench_lines(std::string_view text, std::string_view source) {
  std::vector<Json> rows;
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    if (line.empty()) continue;
    const std::string where = fmt::format("{}, line {}", source, line_number);
    Json row = value_or_throw(parse_json(line, where));
    const auto is_number = [&](const Json& holder, const char* name) {
      return holder.is_object() && holder.contains(name) && holder.at(name).is_number();
    };
    const bool speed = row.is_object() && row.contains("tokens_per_second");
    if (!row.is_object() || !row.contains("what") || !row.at("what").is_string() ||
        (speed && (!row.contains("name") || !row.at("name").is_string() ||
                   !is_number(row.at("tokens_per_second"), "median") ||
                   !is_number(row.at("tokens_per_second"), "min") ||
                   !is_number(row.at("tokens_per_second"), "max") ||
                   (row.contains("compensators") && !row.at("compensators").is_boolean()))))
      throw Failure(ErrorCode::kBadFile, where + ": not a row that `spear bench --json` writes");
    if (speed && row_named(rows, key_of(row)) != nullptr)
      throw Failure(ErrorCode::kBadFile, fmt::format("{}: a second row of '{}'; a file holds one "
                                                     "run of `spear bench`",
                                                     where, key_of(row)));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string compare_bench(const std::vector<Json>& a, const std::vector<Json>& b) {
  std::vector<std::vector<std::string>> table = {{"tokens/s", "A", "B", "B / A", ""}};
  for (const Json& row : a) {
    if (!row.contains("tokens_per_second")) continue;
    const Json* other = row_named(b, key_of(row));
    if (other == nullptr) continue;
    const Spread x = from_json(row.at("tokens_per_second"));
    const Spread y = from_json(other->at("tokens_per_second"));
    const bool apart = y.least > x.most || y.most < x.least;
    table.push_back({key_of(row), fmt::format("{:.1f}", x.median), fmt::format("{:.1f}", y.median),
                     fmt::format("{:.3f}", y.median / x.median), apart ? "" : "ranges overlap"});
  }
  if (table.size() == 1)
    throw Failure(ErrorCode::kUsage, "the two files have no measurement in common");
  return table_text(table);
}

}  // namespace spear
