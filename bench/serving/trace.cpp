#include "trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"

namespace spear {
namespace {

// Of a field's digits; -1: something else.
double number(std::string_view text) {
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size() && value >= 0 ? value : -1;
}

// "2023-11-16 18:15:46.6805900": seconds since some midnight; days count by the date's last number,
// which is enough within a month.
double seconds_of(std::string_view time) {
  if (time.size() < 19 || time[4] != '-' || time[13] != ':') return number(time);
  const double day = number(time.substr(8, 2)), hour = number(time.substr(11, 2));
  const double minute = number(time.substr(14, 2)), second = number(time.substr(17));
  if (day < 0 || hour < 0 || minute < 0 || second < 0) return -1;
  return ((day * 24 + hour) * 60 + minute) * 60 + second;
}

}  // namespace

std::vector<SimulatedRequest> read_trace(const std::string& path, const TraceLimits& limits) {
  const std::string text = value_or_throw(read_text_file(path));
  std::vector<SimulatedRequest> requests;
  int64_t line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (++line_number == 1 || line.empty()) continue;
    const size_t first = line.find(','), second = line.rfind(',');
    const double when = first == std::string_view::npos ? -1 : seconds_of(line.substr(0, first));
    const double prompt = first >= second ? -1 : number(line.substr(first + 1, second - first - 1));
    const double answer = first >= second ? -1 : number(line.substr(second + 1));
    if (when < 0 || prompt < 0 || answer < 0)
      throw Failure(ErrorCode::kBadFile,
                    fmt::format("{}, line {}: TIMESTAMP,ContextTokens,GeneratedTokens expected, "
                                "found \"{}\"",
                                path, line_number, line.substr(0, 80)));
    const auto context = static_cast<double>(limits.context);
    SimulatedRequest r{.arrival = when};
    r.answer = static_cast<int32_t>(std::clamp(answer, 1.0, context / 4));
    r.prompt = static_cast<int32_t>(std::clamp(prompt, 1.0, context - r.answer));
    requests.push_back(r);
    if (limits.requests > 0 && std::ssize(requests) >= limits.requests) break;
  }
  if (requests.size() < 2)
    throw Failure(ErrorCode::kBadFile, fmt::format("{}: two requests or more expected", path));
  std::ranges::stable_sort(requests, {}, &SimulatedRequest::arrival);
  const double start = requests.front().arrival;
  for (SimulatedRequest& r : requests) r.arrival -= start;
  const size_t once = requests.size();
  const double span = requests.back().arrival * static_cast<double>(once) /
                      static_cast<double>(once - 1);  // with the gap to the next beginning
  while (std::ssize(requests) < limits.requests) {
    SimulatedRequest again = requests[requests.size() - once];
    again.arrival += span;
    requests.push_back(again);
  }
  return requests;
}

std::vector<SimulatedRequest> at_rate(const std::vector<SimulatedRequest>& trace, double rate,
                                      double ttft_objective, double itl_objective) {
  const double span = trace.back().arrival;
  const double scale = static_cast<double>(trace.size()) / rate / std::max(span, 1e-9);
  std::vector<SimulatedRequest> requests = trace;
  for (SimulatedRequest& r : requests) {
    r.arrival *= scale;
    r.ttft_objective = ttft_objective;
    r.itl_objective = itl_objective;
  }
  return requests;
}

}  // namespace spear
