#include "spear/report/plot_frame.h"

#include <algorithm>
#include <cmath>

namespace spear {
namespace {

constexpr double kCharacterWidth = 7.2;  // of the label font: wide, so that labels never touch
constexpr double kLabelHeight = 12;

double width_of(std::string_view text) {
  const auto characters = std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
  });
  return kCharacterWidth * static_cast<double>(characters);
}

}  // namespace

void draw_x_axis(Svg& svg, const Area& area, const Axis& axis, std::string_view title) {
  for (const Axis::Tick& tick : axis.ticks()) {
    const double x = axis.at(tick.value);
    svg.line(x, area.top, x, area.bottom, "grid");
    svg.text(x, area.bottom + 16, tick.label, Anchor::kMiddle, "tick");
  }
  svg.line(area.left, area.bottom, area.right, area.bottom, "axis");
  svg.text((area.left + area.right) / 2, area.bottom + 34, title, Anchor::kMiddle, "axis-title");
}

void draw_y_axis(Svg& svg, const Area& area, const Axis& axis, std::string_view title) {
  for (const Axis::Tick& tick : axis.ticks()) {
    const double y = axis.at(tick.value);
    svg.line(area.left, y, area.right, y, "grid");
    svg.text(area.left - 6, y + 4, tick.label, Anchor::kEnd, "tick");
  }
  svg.vertical_text(14, (area.top + area.bottom) / 2, title, "axis-title");
}

void LabelPlacer::reserve_point(double x, double y, double radius) {
  taken_.push_back({x - radius, y - radius, x + radius, y + radius});
}

double LabelPlacer::overlap(const Box& box) const {
  double sum = 0;
  for (const Box& other : taken_) {
    const double width = std::min(box.right, other.right) - std::max(box.left, other.left);
    const double height = std::min(box.bottom, other.bottom) - std::max(box.top, other.top);
    if (width > 0 && height > 0) sum += width * height;
  }
  const double outside =
      std::max(0.0, area_.left - box.left) + std::max(0.0, box.right - area_.right) +
      std::max(0.0, area_.top - box.top) + std::max(0.0, box.bottom - area_.bottom);
  return sum + 20 * outside;
}

void LabelPlacer::label(Svg& svg, double x, double y, std::string_view text,
                        std::string_view css_class) {
  const double width = width_of(text);
  struct Place {
    double dx, dy;  // of the label's left edge and vertical middle from the point
  };
  std::vector<Place> places = {{9, 0}, {-9 - width, 0}, {-width / 2, -14}, {-width / 2, 14}};
  for (int rise = 12; rise <= 60; rise += 12)
    for (const int dy : {-rise, rise}) {
      const double aside = 4 + rise / 4.0;
      places.push_back({aside, static_cast<double>(dy)});
      places.push_back({-aside - width, static_cast<double>(dy)});
    }
  Box best{};
  double least = -1;
  for (const Place& place : places) {
    const Box box{x + place.dx, y + place.dy - kLabelHeight / 2, x + place.dx + width,
                  y + place.dy + kLabelHeight / 2};
    const double cost = overlap(box);
    if (least >= 0 && cost >= least) continue;
    least = cost;
    best = box;
    if (cost == 0) break;
  }
  taken_.push_back(best);
  const double middle = (best.top + best.bottom) / 2;
  if (std::abs(middle - y) > 20)  // far away: a thin line says whose label it is
    svg.line(x, y, best.left > x ? best.left - 2 : best.right + 2, middle, "leader");
  svg.text(best.left, middle + 4, text, Anchor::kStart, css_class);
}

}  // namespace spear
