// A small writer of inline SVG. Colours come from classes of the page's style sheet, so that one
// drawing serves light and dark; whatever text goes in is escaped. Plain values; any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spear {

// Text made safe between tags and inside quoted attributes: markup escaped, control characters and
// invalid UTF-8 replaced by U+FFFD. Line ends and tabs stay.
std::string escape_html(std::string_view text);

enum class Anchor { kStart, kMiddle, kEnd };

class Svg {
 public:
  // `title` and `description` are read aloud; `id` makes them unique in the page.
  Svg(double width, double height, std::string_view id, std::string_view title,
      std::string_view description);

  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void rect(double x, double y, double width, double height, std::string_view css_class,
            std::string_view tooltip = {});
  void circle(double x, double y, double radius, std::string_view css_class,
              std::string_view tooltip = {});
  void diamond(double x, double y, double radius, std::string_view css_class,
               std::string_view tooltip = {});
  void polyline(const std::vector<std::pair<double, double>>& points, std::string_view css_class);
  void text(double x, double y, std::string_view content, Anchor anchor,
            std::string_view css_class);
  // Around (x, y), reading upwards.
  void vertical_text(double x, double y, std::string_view content, std::string_view css_class);

  [[nodiscard]] std::string str() const { return out_ + "</svg>\n"; }

 private:
  void shape(std::string_view element, std::string_view tooltip);
  std::string out_;
};

}  // namespace spear
