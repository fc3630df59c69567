#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "spear/report/axis.h"
#include "spear/report/plots.h"
#include "spear/report/svg.h"

namespace spear {
namespace {

constexpr int kShades = 9;  // classes heat-0 to heat-8 of the style sheet

// Damages reach over decades: shades follow the logarithm from a thousandth of the worst up.
class Shades {
 public:
  explicit Shades(const std::vector<double>& values) {
    for (const double value : values)
      if (std::isfinite(value)) most_ = std::max(most_, value);
    if (most_ <= 0) return;
    least_ = most_;
    for (const double value : values)
      if (value > 0) least_ = std::min(least_, value);
    least_ = std::max(least_, most_ / 1000);
  }
  [[nodiscard]] int of(double value) const {
    if (!(value > least_) || most_ <= least_) return value >= most_ && most_ > 0 ? kShades - 1 : 0;
    const double share = std::log(std::min(value, most_) / least_) / std::log(most_ / least_);
    return std::min(kShades - 1, static_cast<int>(share * kShades));
  }
  [[nodiscard]] double least() const { return least_; }
  [[nodiscard]] double most() const { return most_; }

 private:
  double least_ = 0, most_ = 0;
};

void draw_scale(Svg& svg, const Shades& shades, double x, double y) {
  svg.text(x, y + 10, fmt::format("{:.2g}", shades.least()), Anchor::kEnd, "tick");
  for (int i = 0; i < kShades; ++i) svg.rect(x + 6 + i * 14, y, 14, 12, fmt::format("heat-{}", i));
  svg.text(x + 12 + kShades * 14, y + 10, fmt::format("{:.2g}", shades.most()), Anchor::kStart,
           "tick");
}

}  // namespace

std::string damage_map(const DamageReport& report, DamageKind kind, std::string_view id) {
  const std::vector<double> values =
      kind == DamageKind::kCka ? report.cka_damages() : report.kl_damages();
  const auto layers = static_cast<int64_t>(values.size()) / kModulesPerLayer;
  if (layers == 0) return {};
  const std::string measure = kind == DamageKind::kCka ? "1 − CKA" : "mean KL, nats";
  constexpr double kLeft = 48;
  constexpr double kTop = 30;
  constexpr double kRow = 24;
  const double cell = (kPlotWidth - kLeft - 8) / static_cast<double>(layers);
  const double bottom = kTop + kRow * kModulesPerLayer;
  const Shades shades(values);
  Svg svg(kPlotWidth, bottom + 40, id, fmt::format("Damage of each module: {}", measure),
          "One cell a linear module, quantized alone; layers from left to right. The table beside "
          "it lists the worst.");
  draw_scale(svg, shades, kLeft + 60, 6);
  svg.text(kPlotWidth - 8, 16, measure, Anchor::kEnd, "tick");
  for (const Module module : kModules) {
    const double y = kTop + kRow * static_cast<int>(module);
    svg.text(kLeft - 6, y + kRow / 2 + 4, short_name(module), Anchor::kEnd, "tick");
    for (int64_t layer = 0; layer < layers; ++layer) {
      const ModuleId place{static_cast<int32_t>(layer), module};
      const double value = values[static_cast<size_t>(place.index())];
      svg.rect(kLeft + cell * static_cast<double>(layer), y,
               std::max(0.5, cell - std::min(1.0, cell / 8)), kRow - 1,
               fmt::format("heat-{}", shades.of(value)),
               fmt::format("{}: {:.3g}", name_of(place), value));
    }
  }
  const int64_t step = layers <= 12 ? 1 : layers <= 40 ? 5 : 10;
  for (int64_t layer = 0; layer < layers; layer += step)
    svg.text(kLeft + cell * (static_cast<double>(layer) + 0.5), bottom + 14,
             fmt::format("{}", layer), Anchor::kMiddle, "tick");
  svg.text((kLeft + kPlotWidth) / 2, bottom + 32, "layer", Anchor::kMiddle, "axis-title");
  return svg.str();
}

}  // namespace spear
