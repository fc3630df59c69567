#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/core.h>

#include "spear/report/plot_frame.h"
#include "spear/report/plots.h"

namespace spear {
namespace {

constexpr double kStrip = 74;  // height of a model's part
constexpr double kBars = 46;   // of it for bars

struct Strip {
  std::string name;
  const Divergence* divergence = nullptr;
  std::vector<double> shares;  // [bins]
};

std::vector<Strip> strips_of(const EvalResult& result, const std::string& text) {
  std::vector<Strip> strips;
  for (const ModelResult& model : result.models) {
    const TextResult* own = find_text(model, text);
    if (own == nullptr || !own->divergence) continue;
    const auto& counts = own->divergence->histogram.counts;
    const auto total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    if (total <= 0) continue;
    Strip& strip = strips.emplace_back();
    strip.name = short_model_name(model.path, 40);
    strip.divergence = &*own->divergence;
    for (const int64_t count : counts)
      strip.shares.push_back(static_cast<double>(count) / static_cast<double>(total));
  }
  return strips;
}

std::string bin_name(int bin) {
  if (bin == 0) return "below 1e-6";
  if (bin == KlHistogram::kBins - 1) return "above 10";
  return fmt::format("{:.2g} to {:.2g}", KlHistogram::upper_edge(bin - 1),
                     KlHistogram::upper_edge(bin));
}

void draw_strip(Svg& svg, const Strip& strip, const Axis& x, double top, double highest) {
  const double bottom = top + kStrip - 8;
  svg.text(x.begin(), top + 10, strip.name, Anchor::kStart, "label");
  svg.text(x.end(), top + 10,
           fmt::format("median {:.3g} · mean {:.3g} · 99 % {:.3g}", strip.divergence->kl_median,
                       strip.divergence->kl.mean, strip.divergence->kl_p99),
           Anchor::kEnd, "tick");
  const double width = (x.end() - x.begin()) / KlHistogram::kBins;
  for (int bin = 0; bin < KlHistogram::kBins; ++bin) {
    const double share = strip.shares[static_cast<size_t>(bin)];
    if (share <= 0) continue;
    const double height = kBars * share / highest;
    svg.rect(x.begin() + bin * width + 0.75, bottom - height, width - 1.5, height, "bar",
             fmt::format("KL {}: {:.2f} % of predictions", bin_name(bin), 100 * share));
  }
  svg.line(x.begin(), bottom, x.end(), bottom, "axis");
}

}  // namespace

std::string histogram_plot(const EvalResult& result, const std::string& text, std::string_view id) {
  const std::vector<Strip> strips = strips_of(result, text);
  if (strips.empty()) return {};
  double highest = 0;
  for (const Strip& strip : strips)
    highest = std::max(highest, *std::max_element(strip.shares.begin(), strip.shares.end()));
  const double height = kStrip * static_cast<double>(strips.size()) + 42;
  Svg svg(kPlotWidth, height, id, fmt::format("KL of single predictions on {}", text),
          "Share of predictions by the size of their KL divergence to the reference, one strip a "
          "model, one scale for "
          "all strips; further left is better.");
  const double left = 12;
  const double right = kPlotWidth - 12;
  const Axis x = Axis::linear(0, KlHistogram::kBins, left, right);
  const double bottom = kStrip * static_cast<double>(strips.size()) - 8;
  for (int decade = 0; decade <= KlHistogram::kDecades; ++decade) {
    const double at = x.at(1 + decade * KlHistogram::kBinsPerDecade);
    svg.line(at, 16, at, bottom, "grid");
    svg.text(at, bottom + 16, short_number(std::pow(10.0, KlHistogram::kFirstExponent + decade)),
             Anchor::kMiddle, "tick");
  }
  for (size_t i = 0; i < strips.size(); ++i)
    draw_strip(svg, strips[i], x, kStrip * static_cast<double>(i), highest);
  svg.text((left + right) / 2, bottom + 34, "KL of a prediction, nats", Anchor::kMiddle,
           "axis-title");
  return svg.str();
}

}  // namespace spear
