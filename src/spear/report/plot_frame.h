// What plots have in common: the area, axes with grid lines and titles, labels that keep out of
// each other's way.
#pragma once

#include <string_view>
#include <vector>

#include "spear/report/axis.h"
#include "spear/report/svg.h"

namespace spear {

struct Area {
  double left, top, right, bottom;
};

void draw_x_axis(Svg& svg, const Area& area, const Axis& axis, std::string_view title);
void draw_y_axis(Svg& svg, const Area& area, const Axis& axis, std::string_view title);

// Puts labels beside points: the nearest of some places that covers no earlier label or point and
// stays in the area.
class LabelPlacer {
 public:
  explicit LabelPlacer(const Area& area) : area_(area) {}
  void reserve_point(double x, double y, double radius);
  void label(Svg& svg, double x, double y, std::string_view text, std::string_view css_class);

 private:
  struct Box {
    double left, top, right, bottom;
  };
  [[nodiscard]] double overlap(const Box& box) const;
  Area area_;
  std::vector<Box> taken_;
};

}  // namespace spear
