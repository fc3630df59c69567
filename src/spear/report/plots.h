// The report's pictures. Each returns inline SVG, 460 units wide so that its text stays legible on
// a phone; the same figures stand in a table beside it. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spear/report/report_input.h"

namespace spear {

inline constexpr double kPlotWidth = 460;

// Quality against bytes: KL to the reference (logarithmic) over megabytes, models as discs, peers
// as diamonds, the front of models that none beats in both joined by a line. Empty where no model
// was measured on the text.
std::string quality_plot(const EvalResult& result, const std::string& text, const PeerSet* peers,
                         std::string_view id);

// One strip a model: the share of predictions by the size of their KL.
std::string histogram_plot(const EvalResult& result, const std::string& text, std::string_view id);

enum class DamageKind { kCka, kKl };
// Layers from left to right, modules from top to bottom; darker (brighter at night) is worse.
std::string damage_map(const DamageReport& report, DamageKind kind, std::string_view id);

// Loss of the batches, and KL on held-out sequences where it was measured.
std::string curve_plot(const TrainingCurve& curve, std::string_view id);

// A model's name as a label: the file's name without folder and extension, at most `most`
// characters.
std::string short_model_name(std::string_view path, size_t most = 24);

const TextResult* find_text(const ModelResult& model, const std::string& name);

}  // namespace spear
