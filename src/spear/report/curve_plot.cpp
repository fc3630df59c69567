#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "spear/report/plot_frame.h"
#include "spear/report/plots.h"

namespace spear {
namespace {

constexpr size_t kMostDrawn = 600;  // more points than pixels help nobody

using Line = std::vector<std::pair<double, double>>;

Line thinned(const Line& line) {
  if (line.size() <= kMostDrawn) return line;
  Line out;
  const size_t step = (line.size() + kMostDrawn - 1) / kMostDrawn;
  for (size_t i = 0; i < line.size(); i += step) out.push_back(line[i]);
  if (out.back() != line.back()) out.push_back(line.back());
  return out;
}

Line on_axes(const Line& line, const Axis& x, const Axis& y) {
  Line out;
  for (const auto& [step, value] : thinned(line)) out.emplace_back(x.at(step), y.at(value));
  return out;
}

// A legend entry: a piece of the line and its name. Returns where the next may begin.
double legend(Svg& svg, double x, std::string_view css_class, std::string_view name) {
  svg.line(x, 10, x + 22, 10, css_class);
  svg.text(x + 28, 14, name, Anchor::kStart, "label");
  return x + 28 + 6.6 * static_cast<double>(name.size()) + 18;
}

}  // namespace

std::string curve_plot(const TrainingCurve& curve, std::string_view id) {
  Line loss;
  Line held_out;
  double least = INFINITY;
  double most = 0;
  for (const CurvePoint& point : curve.points) {
    const auto add = [&](Line& line, double value) {
      if (!std::isfinite(value) || value <= 0) return;
      line.emplace_back(static_cast<double>(point.step), value);
      least = std::min(least, value);
      most = std::max(most, value);
    };
    add(loss, point.loss);
    add(held_out, point.held_out_kl);
  }
  if (loss.empty() && held_out.empty()) return {};
  const Area area{58, 26, kPlotWidth - 14, 232};
  const Axis x = Axis::linear(static_cast<double>(curve.points.front().step),
                              static_cast<double>(curve.points.back().step), area.left, area.right);
  const Axis y = Axis::logarithmic(least / 1.05, most * 1.05, area.bottom, area.top);
  Svg svg(kPlotWidth, 276, id, fmt::format("Training of {}", curve.name),
          "Loss of the training batches and KL on held-out sequences by step; the table beside it "
          "holds the held-out "
          "figures.");
  draw_x_axis(svg, area, x, "step");
  draw_y_axis(svg, area, y, "nats");
  double next = area.left;
  if (!loss.empty()) {
    svg.polyline(on_axes(loss, x, y), "curve-loss");
    next = legend(svg, next, "curve-loss", "loss of the batches");
  }
  if (!held_out.empty()) {
    const Line points = on_axes(held_out, x, y);
    svg.polyline(points, "curve-held");
    for (const auto& [px, py] : points)
      if (points.size() <= 60) svg.circle(px, py, 2.5, "curve-dot");
    legend(svg, next, "curve-held", "held-out KL");
  }
  return svg.str();
}

}  // namespace spear
