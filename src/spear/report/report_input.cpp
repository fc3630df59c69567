#include "spear/report/report_input.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "spear/base/json.h"

namespace spear {
namespace {

constexpr size_t kMostPoints = 1'000'000;
constexpr size_t kMostCurves = 64;
constexpr size_t kMostSamples = 200;

Result<CurvePoint> read_point(const Json& json, const std::string& where) {
  const auto number = [&](const char* name) {
    return json.contains(name) && json[name].is_number();
  };
  if (!json.is_object() || !number("step") || !number("loss"))
    return fail(ErrorCode::kBadFile, fmt::format("{} has no numbers \"step\" and \"loss\"", where));
  CurvePoint point{.step = json["step"].get<int64_t>(), .loss = json["loss"].get<double>()};
  if (number("held_out")) point.held_out_kl = json["held_out"].get<double>();
  return point;
}

Result<TrainingCurve> read_curve(const Json& json, const std::string& name,
                                 std::string_view source) {
  TrainingCurve curve{.name = name, .points = {}};
  if (json.size() > kMostPoints)
    return fail(ErrorCode::kBadFile, fmt::format("{}: a curve of {} points; at most {} are drawn",
                                                 source, json.size(), kMostPoints));
  for (size_t i = 0; i < json.size(); ++i) {
    auto point = read_point(json[i], fmt::format("{}: curve point {}", source, i));
    if (!point) return tl::unexpected(point.error());
    curve.points.push_back(*point);
  }
  std::stable_sort(curve.points.begin(), curve.points.end(),
                   [](const CurvePoint& a, const CurvePoint& b) { return a.step < b.step; });
  return curve;
}

// Every "curve" below `json`, named by the key it stands under.
Result<void> collect_curves(const Json& json, const std::string& name, std::string_view source,
                            std::vector<TrainingCurve>& curves) {
  if (!json.is_structured() || curves.size() >= kMostCurves) return {};
  for (const auto& [key, value] : json.items()) {
    if (key == "curve" && value.is_array()) {
      auto curve = read_curve(value, name, source);
      if (!curve) return tl::unexpected(curve.error());
      if (!curve->points.empty()) curves.push_back(std::move(*curve));
      continue;
    }
    const std::string inner = json.is_object() ? key : name;
    if (auto done = collect_curves(value, inner, source, curves); !done) return done;
  }
  return {};
}

bool same_reference(const ModelResult& a, const ModelResult& b) {
  return a.content_hash == b.content_hash && a.compute == b.compute;
}

template <class Item>
void add_missing(std::vector<Item>& to, const std::vector<Item>& from) {
  for (const Item& item : from)
    if (std::none_of(to.begin(), to.end(), [&](const Item& own) { return own.name == item.name; }))
      to.push_back(item);
}

// The same model evaluated in another run adds its other texts and tasks.
void add_model(std::vector<ModelResult>& models, const ModelResult& model) {
  for (ModelResult& own : models) {
    const bool same = own.path == model.path && own.content_hash == model.content_hash;
    if (!same) continue;
    add_missing(own.texts, model.texts);
    add_missing(own.tasks, model.tasks);
    return;
  }
  models.push_back(model);
}

}  // namespace

Result<EvalResult> merge_evaluations(const std::vector<EvalResult>& results) {
  if (results.empty()) return fail(ErrorCode::kUsage, "no evaluation is given; a report needs one");
  EvalResult merged = results.front();
  for (size_t i = 1; i < results.size(); ++i) {
    const EvalResult& next = results[i];
    if (!same_reference(merged.reference, next.reference))
      return fail(
          ErrorCode::kUsage,
          fmt::format(
              "the evaluations have different references, {} and {}; one report compares models "
              "with one reference",
              merged.reference.path, next.reference.path));
    if (merged.quick != next.quick)
      return fail(ErrorCode::kUsage,
                  "quick figures stand beside full ones; they cannot be compared");
    add_missing(merged.reference.texts, next.reference.texts);
    add_missing(merged.reference.tasks, next.reference.tasks);
    for (const ModelResult& model : next.models) add_model(merged.models, model);
  }
  return merged;
}

Result<std::vector<TrainingCurve>> curves_from_json_text(std::string_view text,
                                                         std::string_view source) {
  const auto json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  std::vector<TrainingCurve> curves;
  if (auto done = collect_curves(*json, "training", source, curves); !done)
    return tl::unexpected(done.error());
  return curves;
}

Result<std::vector<TextSample>> samples_from_json_text(std::string_view text,
                                                       std::string_view source) {
  const auto json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  const auto bad = [&](size_t i) {
    return fail(
        ErrorCode::kBadFile,
        fmt::format(
            "{}: sample {} is not {{\"prompt\", \"seed\", \"answers\": [{{\"model\", \"text\"}}]}}",
            source, i));
  };
  if (!json->is_array() || json->size() > kMostSamples)
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: not a list of at most {} samples", source, kMostSamples));
  const auto is_text = [](const Json& object, const char* name) {
    return object.is_object() && object.contains(name) && object[name].is_string();
  };
  std::vector<TextSample> samples;
  for (size_t i = 0; i < json->size(); ++i) {
    const Json& one = (*json)[i];
    if (!is_text(one, "prompt") || !one.contains("seed") || !one["seed"].is_number_unsigned() ||
        !one.contains("answers") || !one["answers"].is_array())
      return bad(i);
    TextSample& sample = samples.emplace_back();
    sample.prompt = one["prompt"].get<std::string>();
    sample.seed = one["seed"].get<uint64_t>();
    for (const Json& answer : one["answers"]) {
      if (!is_text(answer, "model") || !is_text(answer, "text")) return bad(i);
      sample.answers.push_back(
          {answer["model"].get<std::string>(), answer["text"].get<std::string>()});
    }
  }
  return samples;
}

std::string to_json_text(const std::vector<TextSample>& samples) {
  Json out = Json::array();
  for (const TextSample& sample : samples) {
    Json answers = Json::array();
    for (const TextSample::Answer& answer : sample.answers)
      answers.push_back({{"model", answer.model}, {"text", answer.text}});
    out.push_back({{"prompt", sample.prompt}, {"seed", sample.seed}, {"answers", answers}});
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace spear
