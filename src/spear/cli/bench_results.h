// What `spear bench` says: rows as JSON lines, a table of them, and the comparison of two runs'
// files. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spear/base/json.h"
#include "spear/cli/bench_sweep.h"

namespace spear {

// The middle and both ends of some numbers, of which there is at least one.
struct Spread {
  double median = 0, least = 0, most = 0;
};
Spread spread_of(std::vector<double> values);

// A row for each case and subject; then, where a case was run with and without compensators, what
// they cost: the median over rounds of the quotient of times, less one. Each row begins with the
// fields of `about` (model, processor, threads, …).
std::vector<Json> bench_rows(const std::vector<BenchRuns>& all, const Json& about);

std::string bench_lines(const std::vector<Json>& rows);                               // JSON lines
std::string bench_table(const std::vector<Json>& rows);                               // for people
std::vector<Json> parse_bench_lines(std::string_view text, std::string_view source);  // throws
// B beside A, case by case; throws Failure where they have no case in common.
std::string compare_bench(const std::vector<Json>& a, const std::vector<Json>& b);

}  // namespace spear
