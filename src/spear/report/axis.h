// Maps values to pixels, linearly or by their logarithm, and finds round numbers to write along the
// way. Plain values; any thread.
#pragma once

#include <string>
#include <vector>

namespace spear {

class Axis {
 public:
  struct Tick {
    double value;
    std::string label;
  };

  // From value `low` at pixel `begin` to `high` at `end` (which may be smaller: upwards). Empty
  // ranges are widened; a logarithmic axis needs low > 0.
  static Axis linear(double low, double high, double begin, double end);
  static Axis logarithmic(double low, double high, double begin, double end);

  [[nodiscard]] double at(double value) const;  // clamped to the ends
  // About `count` of them, inside the range: 1, 2 or 5 times a power of ten; powers of ten (with 2
  // and 5 where few) on a logarithmic axis.
  [[nodiscard]] std::vector<Tick> ticks(int count = 5) const;
  [[nodiscard]] double begin() const { return begin_; }
  [[nodiscard]] double end() const { return end_; }

 private:
  Axis(double low, double high, double begin, double end, bool logarithmic)
      : low_(low), high_(high), begin_(begin), end_(end), logarithmic_(logarithmic) {}
  [[nodiscard]] std::vector<Tick> linear_ticks(int count) const;
  [[nodiscard]] std::vector<Tick> logarithmic_ticks(int count) const;
  double low_, high_, begin_, end_;
  bool logarithmic_;
};

// As people write it: 0.003, 0.5, 12, 1,200, 1e-6.
std::string short_number(double value);

}  // namespace spear
