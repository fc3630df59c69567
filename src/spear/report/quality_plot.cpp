#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include <fmt/core.h>

#include "spear/report/plot_frame.h"
#include "spear/report/plots.h"

namespace spear {
namespace {

constexpr double kMegabyte = 1e6;
constexpr double kLeastKl = 1e-6;  // a logarithmic axis has no zero

struct Mark {
  std::string name;
  double megabytes = 0;
  double kl = 0;
  bool peer = false;
};

std::vector<Mark> marks_of(const EvalResult& result, const std::string& text,
                           const PeerSet* peers) {
  std::vector<Mark> marks;
  for (const ModelResult& model : result.models) {
    const TextResult* own = find_text(model, text);
    if (own == nullptr || !own->divergence || !std::isfinite(own->divergence->kl.mean)) continue;
    marks.push_back({short_model_name(model.path),
                     static_cast<double>(model.bytes.total) / kMegabyte,
                     std::max(own->divergence->kl.mean, kLeastKl), false});
  }
  if (marks.empty() || peers == nullptr || peers->text != text) return marks;
  for (const PeerPoint& peer : peers->points)
    marks.push_back({peer.name, peer.bytes / kMegabyte, peer.kl, true});
  return marks;
}

// Models that no other model beats in bytes and KL both, by bytes.
std::vector<std::pair<double, double>> front_of(std::vector<Mark> marks) {
  std::erase_if(marks, [](const Mark& mark) { return mark.peer; });
  std::sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) {
    return std::pair(a.megabytes, a.kl) < std::pair(b.megabytes, b.kl);
  });
  std::vector<std::pair<double, double>> front;
  for (const Mark& mark : marks)
    if (front.empty() || mark.kl < front.back().second) front.emplace_back(mark.megabytes, mark.kl);
  return front;
}

template <class Get>
std::pair<double, double> range_of(const std::vector<Mark>& marks, Get get) {
  const auto [low, high] = std::minmax_element(
      marks.begin(), marks.end(), [&](const Mark& a, const Mark& b) { return get(a) < get(b); });
  return {get(*low), get(*high)};
}

}  // namespace

std::string short_model_name(std::string_view path, size_t most) {
  const std::string name = std::filesystem::path(path).filename().string();
  std::string stem = std::filesystem::path(path).filename().stem().string();
  if (name.ends_with(".gguf") || name.ends_with(".spear") || name.ends_with(".safetensors"))
    stem = name.substr(0, name.rfind('.'));
  else
    stem = name.empty() ? std::string(path) : name;
  size_t characters = 0;
  for (size_t i = 0; i < stem.size(); ++i)
    if ((static_cast<unsigned char>(stem[i]) & 0xC0u) != 0x80u && characters++ == most - 1)
      return stem.substr(0, i) + "…";
  return stem;
}

const TextResult* find_text(const ModelResult& model, const std::string& name) {
  const auto found = std::find_if(model.texts.begin(), model.texts.end(),
                                  [&](const TextResult& text) { return text.name == name; });
  return found == model.texts.end() ? nullptr : &*found;
}

std::string quality_plot(const EvalResult& result, const std::string& text, const PeerSet* peers,
                         std::string_view id) {
  const std::vector<Mark> marks = marks_of(result, text, peers);
  if (marks.empty()) return {};
  const Area area{58, 14, kPlotWidth - 14, 292};
  const auto [least_mb, most_mb] = range_of(marks, [](const Mark& mark) { return mark.megabytes; });
  const auto [least_kl, most_kl] = range_of(marks, [](const Mark& mark) { return mark.kl; });
  const double room = std::max(0.08 * (most_mb - least_mb), 0.02 * most_mb);
  const Axis x =
      Axis::linear(std::max(0.0, least_mb - room), most_mb + room, area.left, area.right);
  const Axis y = Axis::logarithmic(least_kl / 1.5, most_kl * 1.5, area.bottom, area.top);

  Svg svg(kPlotWidth, 336, id, fmt::format("Quality against bytes on {}", text),
          "KL divergence to the reference over the size of the model; lower and further left is "
          "better. The table "
          "beside it holds the same figures.");
  draw_x_axis(svg, area, x, "megabytes (smaller is better)");
  draw_y_axis(svg, area, y, "KL to the reference, nats");
  std::vector<std::pair<double, double>> front;
  for (const auto& [megabytes, kl] : front_of(marks)) front.emplace_back(x.at(megabytes), y.at(kl));
  if (front.size() > 1) svg.polyline(front, "front");
  LabelPlacer labels(area);
  for (const Mark& mark : marks) labels.reserve_point(x.at(mark.megabytes), y.at(mark.kl), 6);
  for (const Mark& mark : marks) {
    const std::string tooltip =
        fmt::format("{}: {:.1f} MB, KL {:.4f}", mark.name, mark.megabytes, mark.kl);
    if (mark.peer)
      svg.diamond(x.at(mark.megabytes), y.at(mark.kl), 6, "peer", tooltip);
    else
      svg.circle(x.at(mark.megabytes), y.at(mark.kl), 5, "model", tooltip);
  }
  for (const Mark& mark : marks)
    labels.label(svg, x.at(mark.megabytes), y.at(mark.kl), mark.name,
                 mark.peer ? "label peer-label" : "label");
  return svg.str();
}

}  // namespace spear
