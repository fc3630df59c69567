// Puts a report's input together from whatever documents it is given: results of `spear eval
// --json`, diagnoses, training curves (an artifact's provenance), samples of text. Each document is
// recognised by its fields. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/report/report_input.h"

namespace spear {

class ReportGatherer {
 public:
  // A document from a file. `source` names it in errors, and curves after it.
  Result<void> add_document(std::string_view text, std::string_view source);
  // The sections of an artifact; empty ones are skipped. The certificate's model is called by the
  // artifact's path, wherever it lay when it was measured.
  struct ArtifactTexts {
    std::string_view path, certificate, provenance, diagnosis;
  };
  Result<void> add_artifact(const ArtifactTexts& artifact);
  void add_samples(std::vector<TextSample> samples);

  // `title` and `baseline` may be empty: a title after the reference, no share of the gap.
  [[nodiscard]] Result<ReportInput> build(std::string_view title, std::string_view baseline) const;

 private:
  std::vector<EvalResult> evaluations_;
  std::optional<DamageReport> damage_;
  std::vector<TrainingCurve> curves_;
  std::vector<TextSample> samples_;
};

}  // namespace spear
