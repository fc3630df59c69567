#include "spear/report/svg.h"

#include <cmath>

#include <fmt/core.h>

#include "spear/base/check.h"
#include "spear/eval/texts.h"

namespace spear {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Two decimals of a pixel are enough; a coordinate that is no number would be a bug of a plot.
std::string number(double value) {
  expects(std::isfinite(value));
  std::string text = fmt::format("{:.2f}", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string attribute(std::string_view name, double value) {
  return fmt::format(" {}=\"{}\"", name, number(value));
}

std::string class_attribute(std::string_view css_class) {
  return fmt::format(" class=\"{}\"", escape_html(css_class));
}

const char* name_of(Anchor anchor) {
  switch (anchor) {
    case Anchor::kStart:
      return "start";
    case Anchor::kMiddle:
      return "middle";
    case Anchor::kEnd:
      return "end";
  }
  return "start";
}

void append_escaped(std::string& out, char c) {
  switch (c) {
    case '&':
      out += "&amp;";
      return;
    case '<':
      out += "&lt;";
      return;
    case '>':
      out += "&gt;";
      return;
    case '"':
      out += "&quot;";
      return;
    case '\'':
      out += "&#39;";
      return;
    default:
      break;
  }
  const auto byte = static_cast<unsigned char>(c);
  const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
  if (control)
    out += kReplacement;
  else
    out += c;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = first_invalid_utf8(text);
    for (const char c : text.substr(0, valid)) append_escaped(out, c);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += kReplacement;
    text.remove_prefix(1);
  }
  return out;
}

Svg::Svg(double width, double height, std::string_view id, std::string_view title,
         std::string_view description) {
  const std::string safe = escape_html(id);
  out_ = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{}-title {}-desc\" "
      "xmlns=\"http://www.w3.org/2000/svg\">\n<title id=\"{}-title\">{}</title>\n<desc "
      "id=\"{}-desc\">{}</desc>\n",
      number(width), number(height), safe, safe, safe, escape_html(title), safe,
      escape_html(description));
}

void Svg::shape(std::string_view element, std::string_view tooltip) {
  const std::string_view name = element.substr(0, element.find(' '));
  if (tooltip.empty())
    out_ += fmt::format("<{}/>\n", element);
  else
    out_ += fmt::format("<{}><title>{}</title></{}>\n", element, escape_html(tooltip), name);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  shape("line" + attribute("x1", x1) + attribute("y1", y1) + attribute("x2", x2) +
            attribute("y2", y2) + class_attribute(css_class),
        {});
}

void Svg::rect(double x, double y, double width, double height, std::string_view css_class,
               std::string_view tooltip) {
  shape("rect" + attribute("x", x) + attribute("y", y) + attribute("width", width) +
            attribute("height", height) + class_attribute(css_class),
        tooltip);
}

void Svg::circle(double x, double y, double radius, std::string_view css_class,
                 std::string_view tooltip) {
  shape("circle" + attribute("cx", x) + attribute("cy", y) + attribute("r", radius) +
            class_attribute(css_class),
        tooltip);
}

void Svg::diamond(double x, double y, double radius, std::string_view css_class,
                  std::string_view tooltip) {
  shape(fmt::format("path d=\"M{} {}L{} {}L{} {}L{} {}Z\"", number(x), number(y - radius),
                    number(x + radius), number(y), number(x), number(y + radius),
                    number(x - radius), number(y)) +
            class_attribute(css_class),
        tooltip);
}

void Svg::polyline(const std::vector<std::pair<double, double>>& points,
                   std::string_view css_class) {
  std::string list;
  for (const auto& [x, y] : points)
    list += fmt::format("{}{},{}", list.empty() ? "" : " ", number(x), number(y));
  shape(fmt::format("polyline points=\"{}\"", list) + class_attribute(css_class), {});
}

void Svg::text(double x, double y, std::string_view content, Anchor anchor,
               std::string_view css_class) {
  out_ += fmt::format("<text{}{} text-anchor=\"{}\"{}>{}</text>\n", attribute("x", x),
                      attribute("y", y), name_of(anchor), class_attribute(css_class),
                      escape_html(content));
}

void Svg::vertical_text(double x, double y, std::string_view content, std::string_view css_class) {
  out_ +=
      fmt::format("<text{}{} text-anchor=\"middle\" transform=\"rotate(-90 {} {})\"{}>{}</text>\n",
                  attribute("x", x), attribute("y", y), number(x), number(y),
                  class_attribute(css_class), escape_html(content));
}

}  // namespace spear
