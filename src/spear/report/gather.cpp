#include "spear/report/gather.h"

#include <algorithm>
#include <iterator>

#include <fmt/core.h>

#include "spear/base/json.h"
#include "spear/report/plots.h"

namespace spear {
namespace {

enum class Document { kEvaluation, kDiagnosis, kSamples, kCurves };

Document kind_of(const Json& json) {
  if (json.is_array()) return Document::kSamples;
  if (json.is_object() && json.contains("reference") && json.contains("models"))
    return Document::kEvaluation;
  if (json.is_object() && json.contains("modules")) return Document::kDiagnosis;
  return Document::kCurves;
}

template <class T>
void append(std::vector<T>& to, std::vector<T> from) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

// Curves of several models keep apart by the name of their source.
void name_after(std::vector<TrainingCurve>& curves, std::string_view source) {
  for (TrainingCurve& curve : curves)
    curve.name = fmt::format("{}: {}", short_model_name(source, 40), curve.name);
}

}  // namespace

Result<void> ReportGatherer::add_document(std::string_view text, std::string_view source) {
  const auto json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  switch (kind_of(*json)) {
    case Document::kEvaluation: {
      auto result = eval_result_from_json_text(text, source);
      if (!result) return tl::unexpected(result.error());
      evaluations_.push_back(std::move(*result));
      return {};
    }
    case Document::kDiagnosis: {
      auto report = damage_report_from_json_text(text, source);
      if (!report) return tl::unexpected(report.error());
      damage_ = std::move(*report);
      return {};
    }
    case Document::kSamples: {
      auto samples = samples_from_json_text(text, source);
      if (!samples) return tl::unexpected(samples.error());
      append(samples_, std::move(*samples));
      return {};
    }
    case Document::kCurves: {
      auto curves = curves_from_json_text(text, source);
      if (!curves) return tl::unexpected(curves.error());
      if (curves->empty())
        return fail(
            ErrorCode::kBadFile,
            fmt::format("{}: neither an evaluation nor a diagnosis, samples or training curves",
                        source));
      name_after(*curves, source);
      append(curves_, std::move(*curves));
      return {};
    }
  }
  return {};
}

Result<void> ReportGatherer::add_artifact(const ArtifactTexts& artifact) {
  if (!artifact.certificate.empty()) {
    auto result = eval_result_from_json_text(artifact.certificate,
                                             fmt::format("{} section certificate", artifact.path));
    if (!result) return tl::unexpected(result.error());
    for (ModelResult& model : result->models) model.path = artifact.path;
    evaluations_.push_back(std::move(*result));
  }
  if (!artifact.provenance.empty()) {
    auto curves = curves_from_json_text(artifact.provenance,
                                        fmt::format("{} section provenance", artifact.path));
    if (!curves) return tl::unexpected(curves.error());
    name_after(*curves, artifact.path);
    append(curves_, std::move(*curves));
  }
  if (!artifact.diagnosis.empty() && !damage_) {
    auto report = damage_report_from_json_text(artifact.diagnosis,
                                               fmt::format("{} section diagnosis", artifact.path));
    if (!report) return tl::unexpected(report.error());
    damage_ = std::move(*report);
  }
  return {};
}

void ReportGatherer::add_samples(std::vector<TextSample> samples) {
  append(samples_, std::move(samples));
}

Result<ReportInput> ReportGatherer::build(std::string_view title, std::string_view baseline) const {
  auto merged = merge_evaluations(evaluations_);
  if (!merged) return tl::unexpected(merged.error());
  ReportInput input;
  input.evaluation = std::move(*merged);
  const std::string& reference = input.evaluation.reference.path;
  input.title = title.empty()
                    ? fmt::format("{}: quality against bytes", short_model_name(reference, 60))
                    : std::string(title);
  if (!baseline.empty()) {
    const auto& models = input.evaluation.models;
    const auto found = std::find_if(models.begin(), models.end(), [&](const ModelResult& model) {
      return model.path == baseline || short_model_name(model.path, 200) == baseline;
    });
    if (found == models.end())
      return fail(
          ErrorCode::kUsage,
          fmt::format("baseline {}: no such model in the evaluations; name one of them", baseline));
    input.baseline = found->path;
  }
  input.peers = llama_cpp_peers(reference);
  input.damage = damage_;
  input.curves = curves_;
  input.samples = samples_;
  return input;
}

}  // namespace spear
