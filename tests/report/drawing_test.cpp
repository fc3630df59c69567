#include <cmath>

#include <gtest/gtest.h>

#include "spear/report/axis.h"
#include "spear/report/svg.h"

namespace spear {
namespace {

TEST(Escape, LeavesNoMarkupAndNoControls) {
  EXPECT_EQ(escape_html("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(escape_html("x\ny\tz"), "x\ny\tz");
  EXPECT_EQ(escape_html(std::string_view("\0\x7f", 2)), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(escape_html("é\xff€"), "é\xEF\xBF\xBD€");
}

TEST(Axis, MapsItsEndsAndClampsBeyond) {
  const Axis linear = Axis::linear(10, 20, 0, 100);
  EXPECT_DOUBLE_EQ(linear.at(10), 0);
  EXPECT_DOUBLE_EQ(linear.at(15), 50);
  EXPECT_DOUBLE_EQ(linear.at(99), 100);
  const Axis logarithmic = Axis::logarithmic(0.01, 1, 200, 0);
  EXPECT_DOUBLE_EQ(logarithmic.at(0.1), 100);
  EXPECT_DOUBLE_EQ(logarithmic.at(1e-9), 200);
}

TEST(Axis, TicksAreRoundAndInside) {
  const auto labels = [](const Axis& axis) {
    std::string all;
    for (const Axis::Tick& tick : axis.ticks()) all += tick.label + " ";
    return all;
  };
  EXPECT_EQ(labels(Axis::linear(0, 100, 0, 1)), "0 20 40 60 80 100 ");
  EXPECT_EQ(labels(Axis::linear(78.3, 146, 0, 1)), "80 100 120 140 ");
  EXPECT_EQ(labels(Axis::linear(0, 0.3, 0, 1)), "0 0.1 0.2 0.3 ");
  EXPECT_EQ(labels(Axis::logarithmic(0.02, 1.1, 0, 1)), "0.02 0.05 0.1 0.2 0.5 1 ");
  EXPECT_EQ(labels(Axis::logarithmic(1e-6, 10, 0, 1)), "1e-6 0.0001 0.01 1 ");
}

TEST(Axis, BearsRangesWithoutExtent) {
  for (const double value : {0.0, 5.0, -3.0, 1e9}) {
    const Axis axis = Axis::linear(value, value, 0, 100);
    EXPECT_DOUBLE_EQ(axis.at(value), 50);
    EXPECT_GE(axis.ticks().size(), 2u);
    EXPECT_LE(axis.ticks().size(), 12u);
  }
  for (const double value : {1e-9, 0.013, 7.0, 1e12}) {
    const Axis axis = Axis::logarithmic(value, value, 0, 100);
    EXPECT_NEAR(axis.at(value), 50, 1e-6);
    EXPECT_GE(axis.ticks().size(), 2u);
  }
}

TEST(Numbers, AreShort) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(1234567), "1,234,567");
  EXPECT_EQ(short_number(-1000), "-1,000");
  EXPECT_EQ(short_number(0.25), "0.25");
  EXPECT_EQ(short_number(1e-6), "1e-6");
  EXPECT_EQ(short_number(NAN), "–");
}

}  // namespace
}  // namespace spear
